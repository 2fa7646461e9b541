//! Images that are on the node are for those who could pull them.

use std::path::PathBuf;
use std::time::Duration;

use kubelet::ImageVerification;
use serde_json::{Value, json};

use crate::rig::{IMAGE, Rig, wait};

const PRIVATE: &str = "private.test/app:1";

/// A pod of an image; `secret` may be empty.
fn create(rig: &Rig, name: &str, image: &str, policy: &str, secret: &str) {
    let mut spec = json!({"containers": [
        {"name": "main", "image": image, "imagePullPolicy": policy},
    ]});
    if !secret.is_empty() {
        spec["imagePullSecrets"] = json!([{"name": secret}]);
    }
    rig.create(name, spec);
}

/// Waits until a pod runs, and tells how many pulls there were in all.
async fn pulls_when_running(rig: &Rig, name: &str) -> usize {
    rig.wait_phase(name, "Running").await;
    rig.runtime.pulls().len()
}

/// Waits for the reason for which a pod's container does not start; gives its message.
async fn waits_for(rig: &Rig, name: &str, reason: &str) -> String {
    let pointer = "/status/containerStatuses/0/state/waiting";
    let pod = rig
        .wait_pod(name, reason, |pod| {
            pod.pointer(pointer)
                .is_some_and(|waiting| waiting["reason"] == reason)
        })
        .await;
    let waiting = pod.pointer(pointer).unwrap();
    waiting["message"].as_str().unwrap().to_owned()
}

/// The files of `pulling` or `pulled`.
fn files(rig: &Rig, folder: &str) -> Vec<(PathBuf, Value)> {
    let folder = rig.folder.path().join("kubelet/image_manager").join(folder);
    let entries = std::fs::read_dir(folder).unwrap();
    let read = |path: PathBuf| {
        let tree = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (path, tree)
    };
    entries.map(|entry| read(entry.unwrap().path())).collect()
}

#[tokio::test]
async fn an_image_is_for_those_with_its_credentials() {
    let mut rig = Rig::new().await;
    rig.runtime.set_login("private.test", "u:right");
    rig.put_login("login", "private.test", "u", "right");
    rig.put_login("twin", "private.test", "u", "right");
    rig.put_login("wrong", "private.test", "u", "guess");
    create(&rig, "owner", PRIVATE, "IfNotPresent", "login");
    assert_eq!(pulls_when_running(&rig, "owner").await, 1);
    // Without the credentials the registry decides, and it says no.
    create(&rig, "stranger", PRIVATE, "IfNotPresent", "");
    let fault = waits_for(&rig, "stranger", "ErrImagePull").await;
    assert!(
        fault.contains("- may not pull private.test/app:1"),
        "{fault}"
    );
    create(&rig, "guesser", PRIVATE, "IfNotPresent", "wrong");
    waits_for(&rig, "guesser", "ErrImagePull").await;
    create(&rig, "never", PRIVATE, "Never", "wrong");
    let fault = waits_for(&rig, "never", "ErrImageNeverPull").await;
    let told = "Container image \"private.test/app:1\" is not present with pull policy of Never";
    assert_eq!(fault, told);
    for name in ["stranger", "guesser", "never"] {
        rig.delete(name, 0);
        rig.wait_pod(name, "gone", Value::is_null).await;
    }
    let before = rig.runtime.pulls().len();
    for restarted in [false, true] {
        if restarted {
            rig.restart_kubelet().await;
        }
        let name = |name: &str| format!("{name}-{restarted}");
        create(&rig, &name("same"), PRIVATE, "IfNotPresent", "login");
        create(&rig, &name("twin"), PRIVATE, "Never", "twin");
        for pod in ["same", "twin"] {
            assert_eq!(pulls_when_running(&rig, &name(pod)).await, before, "{pod}");
        }
    }
    // The secret's own pods may use it after its password changed, too.
    rig.put_login("login", "private.test", "u", "new");
    create(&rig, "changed", PRIVATE, "IfNotPresent", "login");
    assert_eq!(pulls_when_running(&rig, "changed").await, before);
    let records = files(&rig, "pulled");
    let record = records
        .iter()
        .find(|(_, record)| record["imageRef"] == json!(format!("sha256:{PRIVATE}")));
    let (path, record) = record.unwrap();
    assert!(
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("sha256-")
    );
    assert_eq!(record["kind"], "ImagePulledRecord");
    let access = &record["credentialMapping"]["private.test/app"];
    let secrets = access["kubernetesSecrets"].as_array().unwrap();
    let names: Vec<_> = secrets.iter().map(|secret| &secret["name"]).collect();
    assert_eq!(names, ["login", "twin"]);
    assert!(!record.to_string().contains("right"));
    assert!(files(&rig, "pulling").is_empty());
}

#[tokio::test]
async fn what_was_pulled_by_anybody_is_for_all() {
    let rig = Rig::new().await;
    for name in ["one", "two"] {
        create(&rig, name, "open.test/app", "IfNotPresent", "");
        assert_eq!(pulls_when_running(&rig, name).await, 1);
    }
    let access = &files(&rig, "pulled")[0].1["credentialMapping"]["open.test/app"];
    assert_eq!(*access, json!({"nodePodsAccessible": true}));
}

#[tokio::test]
async fn what_somebody_else_brought_is_verified_as_told() {
    for (verification, pulls) in [
        (Some(ImageVerification::NeverPreloaded), 0),
        (Some(ImageVerification::Always), 1),
        (Some(ImageVerification::NeverListed(vec!["demo".into()])), 0),
        (
            Some(ImageVerification::NeverListed(vec!["other/*".into()])),
            1,
        ),
        (Some(ImageVerification::Never), 0),
        (None, 0),
    ] {
        let mut rig = Rig::new().await;
        let mut config = rig.config();
        config.image_verification = verification.clone();
        rig.restart_with(config).await;
        // Once pulled it is known, and not pulled again.
        for name in ["web", "again"] {
            create(&rig, name, IMAGE, "IfNotPresent", "");
            let seen = pulls_when_running(&rig, name).await;
            assert_eq!(seen, pulls, "{verification:?}");
        }
    }
}

#[tokio::test]
async fn who_does_not_verify_gives_images_to_all() {
    for verification in [Some(ImageVerification::Never), None] {
        let mut rig = Rig::new().await;
        let mut config = rig.config();
        config.image_verification = verification;
        rig.restart_with(config).await;
        rig.runtime.set_login("private.test", "u:right");
        rig.put_login("login", "private.test", "u", "right");
        create(&rig, "owner", PRIVATE, "IfNotPresent", "login");
        rig.wait_phase("owner", "Running").await;
        for (name, policy) in [("stranger", "IfNotPresent"), ("never", "Never")] {
            create(&rig, name, PRIVATE, policy, "");
            assert_eq!(pulls_when_running(&rig, name).await, 1);
        }
    }
}

/// A kubelet died after the image came and before it was noted for whom.
#[tokio::test]
async fn a_pull_that_nobody_saw_end_is_verified() {
    for spelling in ["private.test/app:1", "private.test/app"] {
        let mut rig = Rig::new().await;
        rig.runtime.set_login("private.test", "u:right");
        rig.put_login("login", "private.test", "u", "right");
        create(&rig, "owner", spelling, "IfNotPresent", "login");
        rig.wait_phase("owner", "Running").await;
        let (path, _) = files(&rig, "pulled").remove(0);
        let name = {
            use sha2::{Digest, Sha256};
            let digest = Sha256::digest(spelling);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256-{hex}")
        };
        std::fs::remove_file(&path).unwrap();
        let intent = json!({
            "kind": "ImagePullIntent", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "image": spelling,
        });
        let pulling = path.parent().unwrap().with_file_name("pulling");
        std::fs::write(pulling.join(name), intent.to_string()).unwrap();
        rig.restart_kubelet().await;
        create(&rig, "stranger", spelling, "IfNotPresent", "");
        waits_for(&rig, "stranger", "ErrImagePull").await;
        assert!(files(&rig, "pulling").is_empty());
        let (_, record) = files(&rig, "pulled").remove(0);
        assert_eq!(record["credentialMapping"], json!({}));
    }
}

/// The disk is looked at every five minutes; the clock is paused, so that they pass at once.
#[tokio::test(start_paused = true)]
async fn records_go_with_their_images() {
    let rig = Rig::new().await;
    create(&rig, "web", "open.test/app:1", "IfNotPresent", "");
    create(&rig, "other", "open.test/other:1", "IfNotPresent", "");
    for name in ["web", "other"] {
        rig.wait_phase(name, "Running").await;
    }
    assert_eq!(files(&rig, "pulled").len(), 2);
    rig.runtime.drop_image("open.test/app:1");
    rig.runtime.step_clock(1);
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    wait("one record", || {
        (files(&rig, "pulled").len() == 1).then_some(())
    })
    .await;
    assert_eq!(
        files(&rig, "pulled")[0].1["imageRef"],
        "sha256:open.test/other:1"
    );
}
