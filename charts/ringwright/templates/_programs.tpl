{{- /* What the order API and the notifier share: ring, database credentials, broker URL. */}}
{{- define "ringwright.program.env" -}}
- {name: {{ .prefix }}_RING_CONFIGMAP, value: {{ printf "%s/%s-ring" .root.Release.Namespace .root.Values.cluster.name | quote }}}
- {name: {{ .prefix }}_LOG_LEVEL, value: {{ .component.logLevel | quote }}}
{{- end }}

{{- define "ringwright.program.mounts" -}}
- {name: ring, mountPath: /etc/ringwright/ring, readOnly: true}
- {name: database, mountPath: /etc/ringwright/database, readOnly: true}
- {name: amqp, mountPath: /etc/ringwright/amqp, readOnly: true}
{{- end }}

{{- define "ringwright.program.volumes" -}}
- name: ring
  configMap: {name: {{ .root.Values.cluster.name }}-ring}
- name: database
  secret: {secretName: {{ .root.Values.cluster.name }}-{{ .role }}, defaultMode: 0440}
- name: amqp
  secret:
    secretName: {{ include "ringwright.amqpSecret" .root }}
    defaultMode: 0440
    items: [{key: url, path: url}]
{{- end }}

{{- /* The one object of the API server a program reads: the ring of its cluster. */}}
{{- define "ringwright.program.rbac" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .fullname }}
  labels: {{- include "ringwright.labels" (dict "root" .root "name" .name) | nindent 4 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .fullname }}
  labels: {{- include "ringwright.labels" (dict "root" .root "name" .name) | nindent 4 }}
rules:
  - apiGroups: [""]
    resources: [configmaps]
    resourceNames: [{{ .root.Values.cluster.name }}-ring]
    verbs: [list, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .fullname }}
  labels: {{- include "ringwright.labels" (dict "root" .root "name" .name) | nindent 4 }}
subjects:
  - {kind: ServiceAccount, name: {{ .fullname }}, namespace: {{ .root.Release.Namespace }}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .fullname }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .fullname }}
  labels: {{- include "ringwright.labels" (dict "root" .root "name" .name) | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "ringwright.selector" (dict "root" .root "name" .name) | nindent 6 }}
{{- end }}
