//! A node that comes with nothing but a bootstrap token.

use std::path::Path;

use crate::cluster::{Cluster, eventually_or};
use crate::kubectl::{Kubectl, kubectls};
use crate::roles::{Parts, start};

const TOKEN: &str = "abcdef.0123456789abcdef";

/// What an administrator (or kubeadm) prepares: the token, who may ask, who is approved unseen.
const RIGHTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: abcdef
  token-secret: "0123456789abcdef"
  usage-bootstrap-authentication: "true"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bootstrap-ask}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: bootstrap-approve}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: rotation-approve}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]
"#;

/// The certificate that a link in the node's folder leads to now.
fn leads_to(folder: &Path, link: &str) -> Option<std::path::PathBuf> {
    std::fs::read_link(folder.join(link)).ok()
}

#[test]
fn a_bootstrap_token_becomes_a_node() {
    let cluster = Cluster::cold();
    let mut parts = Parts::default();
    let root = cluster.folder.path();
    let folder = root.display().to_string();
    let api = [
        "--data-dir",
        &folder,
        "--bind-address",
        "0.0.0.0",
        "--enable-bootstrap-token-auth",
    ];
    start(&cluster, &mut parts, "apiserver", &api.map(str::to_owned));
    let kubectl = Kubectl {
        cluster: &cluster,
        binary: kubectls().remove(0),
        namespace: "kube-system".into(),
    };
    kubectl.until("get --raw /readyz", "ok");
    // What is signed ends so soon that it is replaced as soon as it is there.
    let manager = [
        "--data-dir",
        &folder,
        "--kubeconfig",
        &format!("{folder}/controller-manager.kubeconfig"),
        "--cluster-signing-duration",
        "30s",
    ];
    start(
        &cluster,
        &mut parts,
        "controller-manager",
        &manager.map(str::to_owned),
    );
    kubectl.ok_with("apply -f -", RIGHTS);

    let ca = std::fs::read(root.join("pki/ca.crt")).unwrap();
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, ca);
    let bootstrap = format!(
        "{{apiVersion: v1, kind: Config, current-context: b,\n\
         clusters: [{{name: b, cluster: {{server: 'https://127.0.0.1:6443', \
         certificate-authority-data: {ca}}}}}],\n\
         users: [{{name: b, user: {{token: {TOKEN}}}}}],\n\
         contexts: [{{name: b, context: {{cluster: b, user: b}}}}]}}\n"
    );
    std::fs::write(root.join("bootstrap.kubeconfig"), bootstrap).unwrap();
    let config = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         rotateCertificates: true\nserverTLSBootstrap: true\nmaxPods: 17\n\
         authentication: {{x509: {{clientCAFile: {folder}/pki/ca.crt}}}}\n"
    );
    std::fs::write(root.join("kubelet.yaml"), config).unwrap();
    let kubelet = [
        "--data-dir".to_owned(),
        folder.clone(),
        "--kubeconfig".to_owned(),
        format!("{folder}/node.kubeconfig"),
        "--bootstrap-kubeconfig".to_owned(),
        format!("{folder}/bootstrap.kubeconfig"),
        "--kubelet-config".to_owned(),
        format!("{folder}/kubelet.yaml"),
    ];
    start(&cluster, &mut parts, "kubelet", &kubelet);
    kubectl.until("get nodes --no-headers", " Ready ");

    // The client's certificate is replaced again and again, and the node stays.
    let pki = root.join("kubelet/pki");
    let mut seen = std::collections::BTreeSet::new();
    eventually_or(
        "three certificates",
        || cluster.log(),
        || {
            seen.extend(leads_to(&pki, "kubelet-client-current.pem"));
            (seen.len() >= 3).then_some(())
        },
    );
    let node = kubectl.ok("get csr -o jsonpath={.items[*].spec.username}");
    assert!(node.contains("system:bootstrap:abcdef"), "{node}");
    assert!(node.contains("system:node:node-1"), "{node}");

    // Nobody approves what a server shows, but an administrator.
    assert!(leads_to(&pki, "kubelet-server-current.pem").is_none());
    let serving = "--field-selector=spec.signerName=kubernetes.io/kubelet-serving";
    let list = format!("get csr -o name {serving}");
    kubectl.until(&list, "csr-");
    let asked = kubectl.ok(&list);
    let asked = asked.lines().last().unwrap_or_default().to_owned();
    kubectl.ok(&format!("certificate approve {asked}"));
    eventually_or(
        "a serving certificate",
        || cluster.log(),
        || leads_to(&pki, "kubelet-server-current.pem"),
    );
    let shown = kubectl.ok("get --raw /api/v1/nodes/node-1/proxy/configz");
    assert!(shown.contains("\"maxPods\":17"), "{shown}");
    assert!(shown.contains("\"serverTLSBootstrap\":true"), "{shown}");
    kubectl.until("get nodes --no-headers", " Ready ");
}
