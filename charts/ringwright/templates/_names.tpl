{{- define "ringwright.fullname" -}}
{{- if contains "ringwright" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-ringwright" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ringwright.image" -}}
{{ .root.Values.image.registry }}/{{ .name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- /* The labels that select a component's pods; they never change over the life of a release. */}}
{{- define "ringwright.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "ringwright.labels" -}}
{{ include "ringwright.selector" . }}
app.kubernetes.io/part-of: ringwright
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "ringwright.apiKeysSecret" -}}
{{ .Values.orderApi.apiKeysSecret | default (printf "%s-api-keys" (include "ringwright.fullname" .)) }}
{{- end }}

{{- define "ringwright.rabbitmqSecret" -}}
{{ .Values.rabbitmq.existingSecret | default (printf "%s-rabbitmq" (include "ringwright.fullname" .)) }}
{{- end }}

{{- /* The Secret whose key `url` is the broker's URL. */}}
{{- define "ringwright.amqpSecret" -}}
{{- if .Values.rabbitmq.enabled }}{{ include "ringwright.rabbitmqSecret" . }}{{ else }}{{ required "rabbitmq.enabled is false: set rabbitmq.urlSecret to a Secret whose key `url` is the URL of your broker" .Values.rabbitmq.urlSecret }}{{ end }}
{{- end }}

{{- define "ringwright.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .gid }}
fsGroup: {{ .gid }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ringwright.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "ringwright.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: telemetry}
  periodSeconds: 1
  failureThreshold: 60
# A minute: who is slow under load is not dead, and a restart would leave the load to the others.
livenessProbe:
  httpGet: {path: /livez, port: telemetry}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: telemetry}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- define "ringwright.pullSecrets" -}}
{{- with . }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "ringwright.scheduling" -}}
{{- include "ringwright.pullSecrets" .pullSecrets }}
{{- with .component.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .component.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "ringwright.selector" (dict "root" .root "name" .name) | fromYaml | toJson }}
{{- end }}
