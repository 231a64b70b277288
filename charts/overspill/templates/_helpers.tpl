{{/* Labels of every object. */}}
{{- define "overspill.labels" -}}
app.kubernetes.io/name: overspill
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: overspill
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which the pods of one part are selected. Call: list . "gateway" */}}
{{- define "overspill.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: overspill
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Reference of one of our images. Call: list . "gateway" .Values.gateway.image */}}
{{- define "overspill.image" -}}
{{- $root := index . 0 -}}
{{- $registry := $root.Values.image.registry -}}
{{- $default := printf "%s/%s:%s" $registry (index . 1) ($root.Values.image.tag | default $root.Chart.AppVersion) -}}
{{- $image := index . 2 | default $default -}}
{{- /* Rendering without a cluster works; installing what can never be pulled says so at once. */ -}}
{{- if and (hasPrefix "registry.example.com/" $image) (lookup "v1" "Namespace" "" "kube-system") -}}
{{- fail (printf "image.registry: %s does not exist; push Overspill's images to a registry of yours and set image.registry to it" $registry) -}}
{{- end -}}
{{- $image -}}
{{- end }}

{{/* Where metrics are read: our own Prometheus, the one given, or none. */}}
{{- define "overspill.prometheusURL" -}}
{{- if .Values.prometheus.enabled -}}
{{- if .Values.prometheus.url -}}
{{- fail "prometheus: set url (yours) or enabled (a small one of the chart), not both" -}}
{{- end -}}
http://{{ .Release.Name }}-prometheus.{{ .Release.Namespace }}.svc:9090
{{- else -}}
{{- if and (or .Values.prometheus.credentialsSecret .Values.prometheus.caConfigMap) (not .Values.prometheus.url) -}}
{{- fail "prometheus.credentialsSecret and caConfigMap are for a Prometheus of yours: set prometheus.url" -}}
{{- end -}}
{{- if and .Values.prometheus.recordingRules (not .Values.prometheus.url) -}}
{{- fail "prometheus.recordingRules: there is no Prometheus to record; set prometheus.url or prometheus.enabled" -}}
{{- end -}}
{{ .Values.prometheus.url }}
{{- end -}}
{{- end }}

{{- define "overspill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "overspill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Liveness and readiness on the port of metrics. */}}
{{- define "overspill.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end }}

{{/* Fields of a pod that the user may set. Call with .Values.operator or .Values.gateway */}}
{{- define "overspill.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "overspill.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
Bind rules where services are watched: everywhere, or a role in each watched namespace.
Call: list . "operator" <rules as YAML text>; the service account has the role's name.
*/}}
{{- define "overspill.watchedRoles" -}}
{{- $root := index . 0 -}}
{{- $name := printf "%s-%s" $root.Release.Name (index . 1) -}}
{{- $rules := index . 2 -}}
{{- $namespaces := $root.Values.watchNamespaces | default (list "") -}}
{{- range $namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if . }}Role{{ else }}ClusterRole{{ end }}
metadata:
  name: {{ $name }}
  {{- if . }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "overspill.labels" $root | nindent 4 }}
rules: {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if . }}RoleBinding{{ else }}ClusterRoleBinding{{ end }}
metadata:
  name: {{ $name }}
  {{- if . }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "overspill.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ if . }}Role{{ else }}ClusterRole{{ end }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
{{- end }}

{{/*
A role in one namespace, bound to one of our service accounts.
Call: list . "gateway" <role's suffix> <namespace> <rules as YAML text>
*/}}
{{- define "overspill.namespacedRole" -}}
{{- $root := index . 0 -}}
{{- $account := printf "%s-%s" $root.Release.Name (index . 1) -}}
{{- $name := printf "%s-%s" $account (index . 2) -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ index . 3 }}
  labels: {{- include "overspill.labels" $root | nindent 4 }}
rules: {{- index . 4 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ index . 3 }}
  labels: {{- include "overspill.labels" $root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $account }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}
