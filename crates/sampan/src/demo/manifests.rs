//! The application, as a user would write it.

/// Name under which the demonstration's image is stored.
pub(crate) const IMAGE: &str = "sampan.local/demo-app:v1";

/// Everything the application is made of.
pub(crate) const APPLICATION: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: demo
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: greeting
  namespace: demo
data:
  greeting: Ahoy
---
apiVersion: v1
kind: Secret
metadata:
  name: treasure
  namespace: demo
stringData:
  map: X marks the spot
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: demo
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 15
      containers:
      - name: web
        image: sampan.local/demo-app:v1
        args: [demo-app, serve, --linger-ms=1000]
        ports:
        - {name: http, containerPort: 8080}
        env:
        - {name: VERSION, value: v1}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: GREETING
          valueFrom: {configMapKeyRef: {name: greeting, key: greeting}}
        - name: TREASURE
          valueFrom: {secretKeyRef: {name: treasure, key: map}}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
          periodSeconds: 1
        livenessProbe:
          httpGet: {path: /healthz, port: http}
        resources:
          requests: {cpu: 10m, memory: 16Mi}
          limits: {memory: 64Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: demo
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
---
apiVersion: v1
kind: Pod
metadata:
  name: client
  namespace: demo
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: client
    image: sampan.local/demo-app:v1
    args: [demo-app, watch, "http://web/"]
"#;
