#!/usr/bin/env bash
# unstable.sh FOLDER PACKAGE…: unpacks packages of Debian unstable, with all that they need, in FOLDER/root, beside this
# machine's own, which stay as they are. Each program named by PROGRAMS, a path in there, finds its own libraries by its
# path. Fails, saying why, where this machine is not Debian's or a package is not there.
set -euo pipefail
folder=$1
shift
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Component: main' |
    grep --max-count 1 '/debian/*$') || { echo "unstable.sh: this machine is not Debian's" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$folder"/{lists,archives}/partial "$folder/root"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror sid main" >"$folder/sources.list"
touch "$folder/status"
apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$folder/lists" -o Dir::State::Status="$folder/status" -o Dir::Cache="$folder"
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
{
    command -v patchelf || apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends patchelf
    "${apt[@]}" update
    "${apt[@]}" install --yes --no-install-recommends --download-only "$@"
} >&2
for package in "$folder"/archives/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
libraries=$folder/root/usr/lib/$(uname -m)-linux-gnu
for program in $PROGRAMS; do
    patchelf --set-interpreter "$(echo "$folder"/root/usr/lib*/ld-linux-*.so.*)" --force-rpath --set-rpath "$libraries" \
        "$folder/root/$program"
done
rm -rf "$folder"/{lists,archives}
