{{/*
A setting's value as the environment wants it. YAML reads off as false, and numbers as floating ones; a list is
joined with commas.
*/}}
{{- define "lb.setting" -}}
{{- if kindIs "bool" . -}}
{{ ternary "on" "off" . }}
{{- else if kindIs "float64" . -}}
{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else if kindIs "slice" . -}}
{{- $items := list }}
{{- range . }}{{ $items = append $items (include "lb.setting" .) }}{{ end -}}
{{ join "," $items }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end -}}

{{/*
Environment variables of settings: ejectAfter becomes LB_EJECT_AFTER. One that is null is left out, so that
"--set …=null" gives back the program's own default. Takes a list: prefix, settings.
*/}}
{{- define "lb.settings" -}}
{{- $prefix := index . 0 -}}
{{- range $name, $value := index . 1 }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $prefix }}{{ snakecase $name | upper }}
  value: {{ include "lb.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The balancer's settings as a JSON object: those that follow from other values, under those that are given. */}}
{{- define "lb.balancerSettings" -}}
{{- $settings := dict -}}
{{- if eq (include "lb.discovery" .) "kubernetes" }}
{{- $settings = dict "discovery" "kubernetes" "kubernetesService" (include "lb.backendService" .) }}
{{- with include "lb.backendPort" . }}{{ $_ := set $settings "kubernetesPort" . }}{{ end }}
{{- with .Values.backend.namespace }}{{ $_ := set $settings "kubernetesNamespace" . }}{{ end }}
{{- end }}
{{- if .Values.gateway.enabled }}
{{- $_ := set $settings "gatewayClass" .Values.gateway.className }}
{{- $_ := set $settings "ownService" (include "lb.fullname" .) }}
{{- with .Values.gateway.ingressClass }}{{ $_ := set $settings "ingressClass" . }}{{ end }}
{{- end }}
{{- if and .Values.peers.enabled (eq (include "lb.discovery" .) "kubernetes") }}
{{- $_ := set $settings "peers" (include "lb.peers" .) }}
{{- end }}
{{- if .Values.balancer.tls.secretName }}
{{- $_ := set $settings "tlsCert" "/etc/lb/tls/tls.crt" }}
{{- $_ := set $settings "tlsKey" "/etc/lb/tls/tls.key" }}
{{- end }}
{{- if .Values.balancer.adminTls.secretName }}
{{- $_ := set $settings "adminTlsCert" "/etc/lb/admin-tls/tls.crt" }}
{{- $_ := set $settings "adminTlsKey" "/etc/lb/admin-tls/tls.key" }}
{{- end }}
{{- toJson (merge (dict) (omit .Values.balancer.settings "adminToken") $settings) -}}
{{- end -}}

{{/* How the admin port is spoken to: http or https. */}}
{{- define "lb.adminScheme" -}}
{{- ternary "https" "http" (not (empty (fromJson (include "lb.balancerSettings" .)).adminTlsCert)) -}}
{{- end -}}

{{/* Where the endpoints of the balancer's own port come from; with Gateways there may be none. */}}
{{- define "lb.discovery" -}}
{{- $nothing := and .Values.gateway.enabled (not .Values.pi.enabled) (not .Values.backend.service) -}}
{{- .Values.balancer.settings.discovery | default (ternary "static" "kubernetes" $nothing) -}}
{{- end -}}

{{/* The Service whose endpoints are balanced. */}}
{{- define "lb.backendService" -}}
{{- .Values.backend.service | default (include "lb.name" (list . "pi")) -}}
{{- end -}}

{{/* The port of its EndpointSlices, by name or number; empty for the only one. */}}
{{- define "lb.backendPort" -}}
{{- with .Values.backend.port }}{{ include "lb.setting" . }}{{ else }}{{ if .Values.pi.enabled }}http{{ end }}{{ end -}}
{{- end -}}

{{/* Name of the Secret that has the admin token; empty where there is none. */}}
{{- define "lb.tokenSecret" -}}
{{- if .Values.balancer.settings.adminToken }}{{ include "lb.fullname" . }}-admin{{ else }}{{ .Values.balancer.adminTokenSecret.name }}{{ end -}}
{{- end -}}

{{/* Name of the headless Service by which the replicas find each other, and of what goes with it. */}}
{{- define "lb.peers" -}}
{{- include "lb.fullname" . }}-peers
{{- end -}}

{{/* A port that a component listens at. Takes a list: settings, name, default. */}}
{{- define "lb.port" -}}
{{- get (index . 0) (index . 1) | default (index . 2) | int -}}
{{- end -}}

{{/*
Seconds between SIGTERM and SIGKILL: the drain delay, the drain timeout, and 5 for closing. Takes the settings; the
fallbacks are the programs' own defaults, for values set to null.
*/}}
{{- define "lb.gracePeriod" -}}
{{- $delay := 0 }}{{ $timeout := 30 -}}
{{- if not (kindIs "invalid" .drainDelay) }}{{ $delay = .drainDelay }}{{ end -}}
{{- if not (kindIs "invalid" .drainTimeout) }}{{ $timeout = .drainTimeout }}{{ end -}}
{{- addf $delay $timeout 5 | ceil | int -}}
{{- end -}}

{{/* http or tcp, which is also the name of the port. */}}
{{- define "lb.mode" -}}
{{- .Values.balancer.settings.mode | default "http" -}}
{{- end -}}
