{{/* The release's name, with the chart's where it doesn't contain it; short enough for what is appended. */}}
{{- define "lb.fullname" -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Resource name of a component. Takes a list: root, component. */}}
{{- define "lb.name" -}}
{{- $root := index . 0 -}}
{{- include "lb.fullname" $root -}}
{{- if eq (index . 1) "pi" }}-pi{{ end -}}
{{- end -}}

{{/* Labels that select a component's pods and never change. Takes a list: root, component. */}}
{{- define "lb.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a resource. Takes a list: root, component. */}}
{{- define "lb.labels" -}}
{{- $root := index . 0 -}}
{{ include "lb.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: lb
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Metadata of a resource, without braces around it. Takes a dict: root, component, and as wanted name, namespace,
labels and annotations of its own.
*/}}
{{- define "lb.metadata" -}}
name: {{ .name | default (include "lb.name" (list .root .component)) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "lb.labels" (list .root .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The components that are installed, with spaces between. */}}
{{- define "lb.components" -}}
balancer{{ if .Values.pi.enabled }} pi{{ end }}
{{- end -}}

{{/* Name of a component's ServiceAccount. Takes a list: root, component. */}}
{{- define "lb.serviceAccount" -}}
{{- $account := (index (index . 0).Values (index . 1)).serviceAccount -}}
{{- $account.name | default (ternary (include "lb.name" .) "default" $account.create) -}}
{{- end -}}

{{/* Image of a component, with its registry, tag and digest. Takes a list: root, component. */}}
{{- define "lb.image" -}}
{{- $root := index . 0 -}}
{{- $image := (index $root.Values (index . 1)).image -}}
{{- with $root.Values.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}
