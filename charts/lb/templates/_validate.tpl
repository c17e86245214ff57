{{/* What the schema cannot say, or says badly: values that contradict each other, in a sentence each. */}}
{{- define "lb.validate" -}}
{{- $settings := .Values.balancer.settings -}}
{{- $discovery := include "lb.discovery" . -}}
{{- $wrong := list -}}
{{- if and .Values.pi.enabled .Values.backend.service -}}
{{- $wrong = append $wrong "backend.service is set, and so is pi.enabled: to balance your own Service, add pi.enabled=false." -}}
{{- end -}}
{{- if and .Values.pi.enabled .Values.backend.namespace (ne .Values.backend.namespace .Release.Namespace) -}}
{{- $wrong = append $wrong "backend.namespace is set, but the Pi service lies in the release's namespace: add pi.enabled=false and backend.service." -}}
{{- end -}}
{{- if and (eq $discovery "kubernetes") (not .Values.pi.enabled) (not .Values.backend.service) -}}
{{- $wrong = append $wrong "pi.enabled is false, and nothing says what to balance: set backend.service to the name of a Service." -}}
{{- end -}}
{{- if and (eq $discovery "static") (not $settings.backends) (not $settings.backendsFile) (not .Values.gateway.enabled) -}}
{{- $wrong = append $wrong "balancer.settings.discovery is static: set balancer.settings.backends (host:port, with commas between) or backendsFile." -}}
{{- end -}}
{{- if and (eq $discovery "dns") (not $settings.dnsName) -}}
{{- $wrong = append $wrong "balancer.settings.discovery is dns: set balancer.settings.dnsName to the name to resolve." -}}
{{- end -}}
{{- range $name := list "kubernetesService" "kubernetesPort" "kubernetesNamespace" -}}
{{- if hasKey $settings $name -}}
{{- $wrong = append $wrong (printf "balancer.settings.%s is set: give it as backend.%s, which the Role follows." $name ($name | trimPrefix "kubernetes" | lower)) -}}
{{- end -}}
{{- end -}}
{{- if and $settings.adminToken .Values.balancer.adminTokenSecret.name -}}
{{- $wrong = append $wrong "balancer.settings.adminToken and balancer.adminTokenSecret.name are both set: choose one." -}}
{{- end -}}
{{- if and .Values.balancer.tls.secretName (or $settings.tlsCert $settings.tlsKey) -}}
{{- $wrong = append $wrong "balancer.tls.secretName and balancer.settings.tlsCert or tlsKey are both set: choose one." -}}
{{- end -}}
{{- if and .Values.balancer.adminTls.secretName (or $settings.adminTlsCert $settings.adminTlsKey) -}}
{{- $wrong = append $wrong "balancer.adminTls.secretName and balancer.settings.adminTlsCert or adminTlsKey are both set: choose one." -}}
{{- end -}}
{{- if and .Values.gateway.enabled (eq (include "lb.mode" .) "tcp") -}}
{{- $wrong = append $wrong "gateway.enabled is true, and balancer.settings.mode is tcp: Gateways need http." -}}
{{- end -}}
{{- range $name := list "gatewayClass" "ingressClass" -}}
{{- if hasKey $settings $name -}}
{{- $wrong = append $wrong (printf "balancer.settings.%s is set: use gateway.enabled, gateway.className and gateway.ingressClass, which the ClusterRole follows." $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.enabled is true: set httpRoute.parentRefs to the Gateway that it belongs to." -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\nThe values contradict each other:\n- %s\n" (join "\n- " $wrong)) -}}
{{- end -}}
{{- end -}}
