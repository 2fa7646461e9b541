//! What containers share with each other and with the node on purpose.

use std::path::Path;

use node_api::{Device, Mount, MountPropagation, NamespaceMode, RuntimeService};

use crate::host::{Host, log_of};

#[tokio::test]
async fn a_debugger_joins_its_target() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let target = host.start(&pod, host.shell("exec sleep 1234")).await;
    let mut debugger = host.shell("tr '\\0' ' ' < /proc/1/cmdline; echo");
    debugger.log_path = "debugger/0.log".into();
    debugger.security.namespaces.pid = NamespaceMode::Target(target.clone());
    let id = host.start(&pod, debugger.clone()).await;
    let status = host.ended(&id).await;
    assert_eq!(log_of(&status.log_path), "stdout F sleep 1234 ");
    debugger.security.namespaces.pid = NamespaceMode::Target("nobody".to_owned());
    let id = host
        .engine()
        .create_container(&pod, debugger)
        .await
        .unwrap();
    let fault = host.engine().start_container(&id).await.unwrap_err();
    assert!(
        fault.to_string().contains("nobody is not running"),
        "{fault}"
    );
    host.close().await;
}

#[tokio::test]
async fn the_whole_node_and_single_devices() {
    let host = Host::new().await;
    let mut config = host.shell("cat /host/proc/sys/kernel/ostype; echo x > /dev/mine && echo written; test -c /dev/mine && echo device");
    config.mounts = vec![Mount {
        container_path: "/host".into(),
        host_path: "/".into(),
        ..Mount::default()
    }];
    config.devices = vec![Device {
        container_path: "/dev/mine".into(),
        host_path: "/dev/null".into(),
        permissions: "rw".to_owned(),
    }];
    let (_, log) = host.run_config(config).await;
    assert_eq!(log, "stdout F Linux\nstdout F written\nstdout F device");
    host.close().await;
}

#[tokio::test]
async fn shared_memory_is_the_pods() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let first = host
        .start(&pod, host.shell("echo note > /dev/shm/note"))
        .await;
    host.ended(&first).await;
    let mut config = host.shell("cat /dev/shm/note");
    config.log_path = "second/0.log".into();
    let second = host.start(&pod, config).await;
    let status = host.ended(&second).await;
    assert_eq!(log_of(&status.log_path), "stdout F note");
    host.close().await;
}

#[tokio::test]
async fn mounts_propagate_where_they_are_shared() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let host = Host::new().await;
    let shared = host.folder.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    mount(
        Some("tmpfs"),
        &shared,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    mount(
        None::<&str>,
        &shared,
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )
    .unwrap();
    for name in ["both", "slave"] {
        std::fs::create_dir(shared.join(name)).unwrap();
    }
    let with = |propagation| {
        vec![Mount {
            container_path: "/shared".into(),
            host_path: shared.clone(),
            propagation,
            ..Mount::default()
        }]
    };
    let mut config = host
        .shell("/bin/busybox mount -t tmpfs x /shared/both && touch /shared/both/seen; sleep 1000");
    config.security.privileged = true;
    config.mounts = with(MountPropagation::Bidirectional);
    let pod = host.pod().await;
    let giver = host.start(&pod, config).await;
    let mut config = host.shell("while :; do sleep 1; done");
    config.log_path = "taker/0.log".into();
    config.mounts = with(MountPropagation::HostToContainer);
    let taker = host.start(&pod, config).await;
    let slave = shared.join("slave");
    mount(
        Some("tmpfs"),
        &slave,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    std::fs::write(slave.join("given"), "").unwrap();
    let look = vec!["ls".to_owned(), "/shared/slave".to_owned()];
    let seen = host.engine().exec_sync(&taker, look, None).await.unwrap();
    for _ in 0..100 {
        if shared.join("both/seen").exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let arrived = shared.join("both/seen").exists();
    host.engine()
        .stop_container(&giver, std::time::Duration::ZERO)
        .await
        .unwrap();
    let unmount = |path: &Path| umount2(path, MntFlags::MNT_DETACH);
    let results = [
        unmount(&shared.join("both")),
        unmount(&slave),
        unmount(&shared),
    ];
    assert!(arrived, "a mount made inside is seen outside");
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "given\n",
        "a mount made outside is seen inside"
    );
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    host.close().await;
}

#[tokio::test]
async fn a_data_folder_on_an_overlay() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let host = Host::new().await;
    // The engine's writable parts come to lie on an overlay, as in a container without a volume.
    let parts =
        ["lower", "upper", "work"].map(|name| host.folder.path().join(format!("outer-{name}")));
    for part in &parts {
        std::fs::create_dir(part).unwrap();
    }
    let [lower, upper, work] = parts.map(|part| part.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let folder = host.folder.path().join("containers/containers");
    mount(
        Some("overlay"),
        &folder,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let (status, log) = host.run("echo kept > /file; cat /file").await;
    umount2(&folder, MntFlags::MNT_DETACH).unwrap();
    assert_eq!((status.exit_code, log.as_str()), (0, "stdout F kept"));
    host.close().await;
}
