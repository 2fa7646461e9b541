//! What kubectl asks of an API server beyond objects and pods: subresources, raw paths,
//! tokens and certificates.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;

use crate::kubectl::{Kubectl, texts};

/// Everything of this file, with one kubectl.
pub(crate) fn ask_more(kubectl: &Kubectl<'_>) {
    verbs(kubectl);
    raw_paths(kubectl);
    tokens(kubectl);
    edit_status(kubectl);
    certificates(kubectl);
}

fn verbs(kubectl: &Kubectl<'_>) {
    let listed = kubectl.ok("api-resources --verbs=list,watch --namespaced -o name");
    assert!(listed.lines().any(|line| line == "deployments.apps"));
    assert!(!listed.contains("tokenreviews") && !listed.contains("nodes"));
    let posted = kubectl.ok("api-resources --verbs=create --namespaced=false -o name");
    assert!(posted.contains("tokenreviews.authentication.k8s.io"));
    let whole = kubectl.ok("explain deployment --recursive");
    for field in ["progressDeadlineSeconds", "topologySpreadConstraints"] {
        assert!(whole.contains(field), "{field} in {whole}");
    }
}

fn raw_paths(kubectl: &Kubectl<'_>) {
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.namespace);
    let body = |value: &str| {
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"raw"}},"data":{{"a":"{value}"}}}}"#
        )
    };
    kubectl.ok_with(&format!("create --raw {path} -f -"), &body("1"));
    kubectl.ok_with(&format!("replace --raw {path}/raw -f -"), &body("2"));
    assert_eq!(kubectl.ok("get cm raw -o 'jsonpath={.data.a}'"), "2");
    kubectl.ok(&format!("delete --raw {path}/raw"));
}

fn tokens(kubectl: &Kubectl<'_>) {
    let token = kubectl.ok("create token default --duration=15m --audience=harbour");
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let refused = kubectl.fails("create token nobody", "");
    let wanted = "serviceaccounts \"nobody\" not found";
    assert!(refused.contains(wanted), "{refused}");
}

/// The status of an Ingress that no controller follows, by an editor.
fn edit_status(kubectl: &Kubectl<'_>) {
    kubectl.ok("create ingress pier --class=nobody --rule=pier.example/*=web:80");
    let editor = kubectl.cluster.folder.path().join("status-editor");
    let script = "s/loadBalancer: {}/loadBalancer: {ingress: [{ip: 192.0.2.7}]}/";
    std::fs::write(&editor, format!("#!/bin/sh\nsed -i '{script}' \"$1\"\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let variable = format!("EDITOR={}", editor.display());
    let binary = kubectl.binary.display().to_string();
    let mut words = vec![variable.as_str(), &binary, "-n", &kubectl.namespace];
    words.extend(["edit", "ingress", "pier", "--subresource=status"]);
    let output = kubectl.cluster.run(Path::new("env"), &words, "");
    let (out, err) = texts(&output);
    assert!(
        output.status.success() && out.contains("edited"),
        "{out}{err}"
    );
    let address = "get ingress pier -o 'jsonpath={.status.loadBalancer.ingress[0].ip}'";
    assert_eq!(kubectl.ok(address), "192.0.2.7");
    assert_eq!(
        kubectl.ok("get ingress pier --subresource=status -o 'jsonpath={.spec.ingressClassName}'"),
        "nobody"
    );
    kubectl.ok("delete ingress pier");
}

/// One request approved and signed, one denied.
fn certificates(kubectl: &Kubectl<'_>) {
    let key = kubectl.cluster.folder.path().join("mate.key");
    let key = key.display().to_string();
    let asked = kubectl.cluster.run(
        Path::new("openssl"),
        &[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            &key,
            "-subj",
            "/CN=mate/O=crew",
        ],
        "",
    );
    assert!(asked.status.success(), "{}", texts(&asked).1);
    let request = base64::engine::general_purpose::STANDARD.encode(&asked.stdout);
    for name in ["welcome", "unwanted"] {
        let name = format!("{name}-{}", kubectl.namespace);
        let body = format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  request: {request}\n  signerName: kubernetes.io/kube-apiserver-client\n  usages: [client auth]\n"
        );
        kubectl.ok_with("create -f -", &body);
    }
    let welcome = format!("csr/welcome-{}", kubectl.namespace);
    let unwanted = format!("csr/unwanted-{}", kubectl.namespace);
    kubectl.ok(&format!("certificate approve {}", &welcome[4..]));
    kubectl.until(
        &format!("get {welcome} -o 'jsonpath={{.status.certificate}}'"),
        "LS0tLS1CRUdJTi",
    );
    kubectl.ok(&format!("certificate deny {}", &unwanted[4..]));
    assert!(kubectl.ok(&format!("get {unwanted}")).contains("Denied"));
    assert!(
        kubectl
            .ok(&format!("get {welcome}"))
            .contains("Approved,Issued")
    );
    kubectl.ok(&format!("delete {welcome} {unwanted}"));
}
