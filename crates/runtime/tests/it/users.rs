//! Pods with a user namespace of their own, and who a container's processes are.

use std::os::unix::fs::MetadataExt;

use node_api::{
    ContainerUser, IdMapping, ImageMount, Mount, NamespaceMode, NamespaceOptions, PodSandboxConfig,
    RuntimeError, RuntimeService, UserNamespace,
};

use crate::host::{Host, log_of};

const FIRST_ID: u32 = 700_000;

fn mapped(host: &Host, pid: NamespaceMode) -> PodSandboxConfig {
    let ids = vec![IdMapping {
        host_id: FIRST_ID,
        container_id: 0,
        length: 65_536,
    }];
    PodSandboxConfig {
        namespaces: NamespaceOptions {
            pid,
            user: Some(UserNamespace {
                uids: ids.clone(),
                gids: ids,
            }),
            ..NamespaceOptions::default()
        },
        ..host.pod_config()
    }
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let host = Host::new().await;
    let volume = host.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::os::unix::fs::chown(&volume, Some(5), Some(5)).unwrap();
    for (index, pid) in [NamespaceMode::Container, NamespaceMode::Pod]
        .into_iter()
        .enumerate()
    {
        let pod = host
            .engine()
            .run_pod_sandbox(mapped(&host, pid.clone()))
            .await
            .unwrap();
        let mut config = host.shell(
            "cat /proc/self/uid_map; id -u; touch /mine /volume/mine; ls -ln /volume/mine; \
             ls -lnd /volume /bin /mnt2 /; hostname inside && hostname; mount -t tmpfs x /mnt2 && echo mounted; \
             echo x > /dev/null && echo device; touch /done; while :; do sleep 1; done",
        );
        config.security.namespaces.pid = pid;
        config.security.add_capabilities = vec!["SYS_ADMIN".to_owned()];
        config.working_dir = "/mnt2".to_owned();
        config.log_path = format!("{index}.log").into();
        config.mounts = vec![Mount {
            container_path: "/volume".into(),
            host_path: volume.clone(),
            mapped: true,
            ..Mount::default()
        }];
        let id = host.start(&pod, config).await;
        let status = host.engine().container_status(&id).await.unwrap();
        let map = std::fs::read_to_string(format!("/proc/{}/uid_map", status.pid)).unwrap();
        let words: Vec<_> = map.split_whitespace().collect();
        assert_eq!(words, ["0", "700000", "65536"]);
        let owner = std::fs::metadata(format!("/proc/{}", status.pid)).unwrap();
        assert_eq!((owner.uid(), owner.gid()), (FIRST_ID, FIRST_ID));
        let command = [
            "/bin/sh",
            "-c",
            "until test -e /done; do :; done; id -u; cat /proc/self/uid_map",
        ];
        let command = command.map(str::to_owned).to_vec();
        let seen = host.engine().exec_sync(&id, command, None).await.unwrap();
        let seen = String::from_utf8(seen.stdout).unwrap();
        assert!(seen.starts_with("0\n") && seen.contains("700000"), "{seen}");
        host.engine()
            .stop_container(&id, std::time::Duration::ZERO)
            .await
            .unwrap();
        let log = log_of(&status.log_path);
        for expected in [
            "F 0\n",
            // The volume's ids are the pod's, on both sides.
            "0 0 ",
            "5 5 ",
            "F inside",
            "F mounted",
            "F device",
        ] {
            let plain: Vec<_> = log.split(' ').filter(|word| !word.is_empty()).collect();
            let plain = plain.join(" ");
            assert!(plain.contains(expected), "{expected:?} in {plain}");
        }
        let written = std::fs::metadata(volume.join("mine")).unwrap();
        assert_eq!((written.uid(), written.gid()), (0, 0));
        // As on disk as inside: the container's own files, and what was made for it.
        let own = host.engine().root().join("containers").join(&id);
        for name in ["upper", "upper/mine", "upper/mnt2", "upper/volume"] {
            let stored = std::fs::metadata(own.join(name)).unwrap();
            assert_eq!((stored.uid(), stored.gid()), (0, 0), "{name}");
        }
        host.engine().remove_pod_sandbox(&pod).await.unwrap();
    }
    host.close().await;
}

#[tokio::test]
async fn a_terminal_belongs_to_the_pods_own_root() {
    let host = Host::new().await;
    let pod = mapped(&host, NamespaceMode::Container);
    let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
    let mut config = host.shell("ls -ln /dev/pts/0; echo typed > /dev/console");
    config.tty = true;
    let id = host.start(&pod, config).await;
    let status = host.ended(&id).await;
    let log = log_of(&status.log_path);
    assert_eq!(status.exit_code, 0, "{log}");
    assert!(log.contains("0        5"), "{log}");
    assert!(log.contains("typed"), "{log}");
    host.close().await;
}

#[tokio::test]
async fn what_cannot_be_mapped_is_refused() {
    let host = Host::new().await;
    let range = |container_id, length| IdMapping {
        host_id: 1000,
        container_id,
        length,
    };
    for ranges in [
        vec![],
        vec![range(1, 10)],
        vec![range(0, 0)],
        vec![range(0, 10), range(0, 10)],
        vec![range(0, 10), range(10, 10)],
        vec![range(0, u32::MAX)],
    ] {
        let mut pod = mapped(&host, NamespaceMode::Container);
        pod.namespaces.user = Some(UserNamespace {
            uids: ranges.clone(),
            gids: ranges,
        });
        let fault = host.engine().run_pod_sandbox(pod).await.unwrap_err();
        assert!(matches!(fault, RuntimeError::InvalidArgument(_)), "{fault}");
    }
    host.close().await;
}

#[tokio::test]
async fn the_status_tells_who_runs() {
    let host = Host::new().await;
    let mut config = host.shell("id -u");
    config.security.run_as_user = Some(1000);
    config.security.run_as_group = Some(1001);
    config.security.supplemental_groups = vec![7];
    let (status, log) = host.run_config(config).await;
    assert_eq!(log, "stdout F 1000");
    let user = ContainerUser {
        uid: 1000,
        gid: 1001,
        supplemental_groups: vec![7, 1001],
    };
    assert_eq!(status.user, Some(user));
    host.close().await;
}

#[tokio::test]
async fn ambient_capabilities_outlive_the_change_of_user() {
    let host = Host::new().await;
    let mut config = host.shell("grep CapAmb /proc/self/status; grep CapEff /proc/self/status");
    config.security.run_as_user = Some(1000);
    config.security.ambient_capabilities = vec!["NET_BIND_SERVICE".to_owned()];
    let (_, log) = host.run_config(config).await;
    assert!(log.contains("CapAmb:\t0000000000000400"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000400"), "{log}");
    host.close().await;
}

#[tokio::test]
async fn images_are_volumes() {
    let host = Host::new().await;
    let volume = |path: &str, sub: &str| Mount {
        container_path: path.into(),
        readonly: true,
        image: Some(ImageMount {
            image: host.image.clone(),
            user_specified_image: "test/busybox".to_owned(),
            sub_path: sub.into(),
        }),
        ..Mount::default()
    };
    let script = "/image/bin/busybox echo runs; touch /image/x || echo read-only; ls /bins/busybox";
    let mut config = host.shell(script);
    config.mounts = vec![volume("/image", ""), volume("/bins", "bin")];
    for user in [false, true] {
        let pod = match user {
            true => mapped(&host, NamespaceMode::Container),
            false => host.pod_config(),
        };
        let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
        let id = host.start(&pod, config.clone()).await;
        let status = host.ended(&id).await;
        let log = log_of(&status.log_path);
        for expected in ["F runs", "F read-only", "F /bins/busybox"] {
            assert!(log.contains(expected), "{expected} in {log}");
        }
        host.engine().remove_pod_sandbox(&pod).await.unwrap();
        std::fs::remove_file(&status.log_path).unwrap();
    }
    let pod = host.pod().await;
    let mut writable = volume("/image", "");
    writable.readonly = false;
    for wrong in [
        volume("/image", "none"),
        volume("/image", "../etc"),
        writable,
    ] {
        config.mounts = vec![wrong];
        let refused = host.engine().create_container(&pod, config.clone()).await;
        let fault = refused.unwrap_err();
        assert!(matches!(fault, RuntimeError::InvalidArgument(_)), "{fault}");
    }
    host.close().await;
}

#[tokio::test]
async fn recursive_read_only_needs_its_conditions() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mount = Mount {
        container_path: "/v".into(),
        host_path: host.folder.path().to_owned(),
        readonly: true,
        recursive_read_only: true,
        ..Mount::default()
    };
    let writable = Mount {
        readonly: false,
        ..mount.clone()
    };
    let shared = Mount {
        propagation: node_api::MountPropagation::HostToContainer,
        ..mount
    };
    for wrong in [writable, shared] {
        let mut config = host.shell("true");
        config.mounts = vec![wrong];
        let refused = host.engine().create_container(&pod, config).await;
        assert!(matches!(refused, Err(RuntimeError::InvalidArgument(_))));
    }
    host.close().await;
}

#[tokio::test]
async fn figures_of_a_container_and_its_pod() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let script =
        "dd if=/dev/zero of=/written bs=1000 count=100; echo ready; while :; do sleep 1; done";
    let config = host.shell(script);
    let id = host.start(&pod, config).await;
    let ready = ["/bin/sh", "-c", "until test -s /written; do :; done"];
    let ready = ready.map(str::to_owned).to_vec();
    host.engine().exec_sync(&id, ready, None).await.unwrap();
    let written = host.engine().writable_layer(&id).await.unwrap();
    assert!(written.used_bytes > 0 && written.inodes_used >= 2);
    let figures = host.engine().container_figures(&id).await.unwrap();
    assert!(figures.threads >= 1 && figures.file_descriptors >= 3);
    assert!(figures.open_files_limit > 0);
    let stats = host.engine().pod_sandbox_stats(&pod).await.unwrap();
    assert_eq!(stats.total.id, pod);
    assert!(stats.total.process_count > 0);
    host.close().await;
}
