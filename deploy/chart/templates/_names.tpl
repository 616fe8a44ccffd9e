{{/* Labels that say what a thing is; a part's are those and its component. */}}
{{- define "blixt.labels" -}}
app.kubernetes.io/name: blixt
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "blixt.controller.selector" -}}
app.kubernetes.io/name: blixt
app.kubernetes.io/component: controller
{{- end }}

{{- define "blixt.agent.selector" -}}
app.kubernetes.io/name: blixt
app.kubernetes.io/component: agent
{{- end }}

{{- define "blixt.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Numbers of values.yaml may come as floats, which Go writes with an exponent from a million on. */}}
{{- define "blixt.count" -}}
{{- printf "%d" (int64 .) }}
{{- end }}
