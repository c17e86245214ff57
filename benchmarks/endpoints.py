"""The endpoints behind every balancer: one nginx on the core that the balancer does not have.

`/` answers 12 bytes from memory, `/f/SIZE` a file of that size, `/chunked/SIZE` the same without a Content-Length;
`/upload` answers once it has read the request's body.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

from benchmarks import processes
from benchmarks.peers.nginx import own_folders
from benchmarks.ports import free_port, status_of

SIZES = {"1k": 1 << 10, "16k": 1 << 14, "64k": 1 << 16, "1m": 1 << 20, "10m": 10 << 20}


class Endpoints:
    """Two ports of one nginx worker, and two more for HTTP/2; a context manager."""

    def __init__(self, folder: Path, core: int | None) -> None:
        self.folder = folder / "endpoints"
        self.core = core
        self.ports = (free_port(), free_port())
        self.http2_ports = (free_port(), free_port())
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """As the balancers' configurations name them."""
        return tuple(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def http2_addresses(self) -> tuple[str, ...]:
        """The same, spoken to by HTTP/2 in plain text."""
        return tuple(f"127.0.0.1:{port}" for port in self.http2_ports)

    def _config(self) -> str:
        folder = self.folder
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=4096;" for port in self.ports)
        listen += "".join(f" listen 127.0.0.1:{port} backlog=4096 http2;" for port in self.http2_ports)
        return (
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            "events { worker_connections 8192; }\n"
            f"http {{ access_log off; {own_folders(folder)} keepalive_requests 1000000000; keepalive_timeout 300;\n"
            # Head and body in one segment, as Debian sets nginx up, and as an application server writes them.
            "sendfile on; tcp_nopush on;\n"
            # Small enough not to reach the disk: a body is kept in memory until the answer.
            "client_max_body_size 0; client_body_buffer_size 2m; open_file_cache max=16;\n"
            f'server {{ {listen} location / {{ return 200 "hello world\\n"; }}\n'
            # `return` answers before the body is there; a proxy reads it whole first.
            "location /upload { proxy_pass_request_body off; proxy_set_header Content-Length ''; proxy_method GET;"
            f" proxy_pass http://127.0.0.1:{self.ports[0]}/; proxy_max_temp_file_size 0; }}\n"
            f"location /f/ {{ alias {folder}/files/; }}\n"
            # By sendfile the frame of each chunk would be a segment of its own.
            f"location /chunked/ {{ alias {folder}/files/; ssi on; ssi_types *; sendfile off; }} }} }}\n"
        )

    def __enter__(self) -> Self:
        (self.folder / "files").mkdir(parents=True)
        for name, size in SIZES.items():
            (self.folder / "files" / name).write_bytes(b"x" * size)
        file = self.folder / "nginx.conf"
        file.write_text(self._config())
        command = ["nginx", "-p", str(self.folder), "-c", str(file), "-e", str(self.folder / "error.log")]
        self._process = processes.start(command, self.folder, self.core)
        while status_of(self.ports[0]) != 200:
            if self._process.poll() is not None:
                raise RuntimeError(f"the endpoints do not start: {(self.folder / 'output.log').read_text()}")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process is not None:
            processes.stop(self._process)
