{{/*
Pods of a component's Deployment. Takes a list: root, component.

Scaling by hand or by an autoscaler is not overruled: an upgrade keeps what runs, unless the value has changed since
the last one (the Deployment's annotation lb/replicas has it), and an autoscaler that is switched on finds what runs, or
its minimum. Empty where there is an autoscaler and no cluster to ask (`helm template`).
*/}}
{{- define "lb.replicas" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- $live := lookup "apps/v1" "Deployment" $root.Release.Namespace (include "lb.name" .) -}}
{{- $runs := dig "spec" "replicas" 1 $live | int -}}
{{- if $values.autoscaling.enabled -}}
{{- if $live -}}
{{- max $runs $values.autoscaling.minReplicas -}}
{{- else if lookup "v1" "ConfigMap" $root.Release.Namespace "kube-root-ca.crt" -}}
{{- $values.autoscaling.minReplicas -}}
{{- end -}}
{{- else if and $live (eq (dig "metadata" "annotations" "lb/replicas" "" $live) (toString $values.replicas)) -}}
{{- $runs -}}
{{- else -}}
{{- $values.replicas -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a component's Deployment. Takes a list: root, component. */}}
{{- define "lb.deploymentAnnotations" -}}
{{- $values := index (index . 0).Values (index . 1) -}}
{{- $own := ternary dict (dict "lb/replicas" (toString $values.replicas)) $values.autoscaling.enabled -}}
{{- merge (dict) $values.deploymentAnnotations $own | toJson -}}
{{- end -}}

{{/* Metadata of a component's pods. Takes a list: root, component. */}}
{{- define "lb.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- /* Without the chart's version, so that a new chart alone replaces no pod. */}}
labels:
  {{- include "lb.selector" . | nindent 2 }}
  {{- with $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) $values.podAnnotations $root.Values.commonAnnotations }}
{{- if and (eq (index . 1) "balancer") $values.settings.adminToken }}
{{- $_ := set $annotations "checksum/admin-token" (sha256sum $values.settings.adminToken) }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What the pods of both components have in common: who runs them, where, and for how long they may leave. */}}
{{- define "lb.podSpec" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- $this := . -}}
serviceAccountName: {{ include "lb.serviceAccount" . }}
{{- /* Without this, a Service called lb makes Kubernetes inject LB_PORT=tcp://… and the like. */}}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "lb.gracePeriod" $values.settings }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "lb.selector" $this | nindent 8 }}
    # Each rollout for itself: its old pods don't count.
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What the containers of both components have in common. */}}
{{- define "lb.container" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
image: {{ include "lb.image" . | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- with $values.command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.args }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A component's probes. Takes a list: its values, the port's name, http or https. */}}
{{- define "lb.probes" -}}
{{- $values := index . 0 -}}
{{- $port := index . 1 -}}
{{- $scheme := ternary ", scheme: HTTPS" "" (eq (index . 2) "https") -}}
readinessProbe:
  httpGet: {path: /readyz, port: {{ $port }}{{ $scheme }}}
  {{- toYaml $values.readinessProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: {{ $port }}{{ $scheme }}}
  {{- toYaml $values.livenessProbe | nindent 2 }}
{{- end -}}
