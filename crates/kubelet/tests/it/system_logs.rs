//! What the machine itself says, by the kubelet's server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kubelet::SystemLogs;

use crate::server::Front;

/// A journal that knows one service, and tells how it was asked.
const JOURNAL: &str = "#!/bin/sh
case \"$1\" in
--field) printf 'cron.service\\nssh.service\\n' ;;
*) echo \"asked $*\" ;;
esac
";

async fn front(folder: &Path, query: bool, journal: &str) -> Front {
    let logs = folder.join("log");
    std::fs::create_dir_all(logs.join("pods/a b")).unwrap();
    std::fs::write(logs.join("app.log"), "one\ntwo\n").unwrap();
    std::fs::write(folder.join("secret"), "hidden").unwrap();
    std::os::unix::fs::symlink(folder.join("secret"), logs.join("way-out")).unwrap();
    let journalctl = folder.join("journalctl");
    std::fs::write(&journalctl, JOURNAL).unwrap();
    std::fs::set_permissions(&journalctl, PermissionsExt::from_mode(0o755)).unwrap();
    Front::with(|config, _| {
        config.system_logs = Some(SystemLogs {
            folder: logs,
            query,
            journalctl: folder.join(journal),
        });
    })
    .await
}

#[tokio::test]
async fn files_of_the_machine_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let front = front(folder.path(), false, "journalctl").await;
    let (code, page) = front.get("/logs/").await;
    assert_eq!(code, 200);
    assert!(page.contains("<a href=\"app.log\">app.log</a>\n<a href=\"pods/\">pods/</a>"));
    let (_, page) = front.get("/logs/pods/").await;
    assert!(page.contains("<a href=\"a%20b/\">a b/</a>"), "{page}");
    assert_eq!(
        front.get("/logs/app.log").await,
        (200, "one\ntwo\n".to_owned())
    );
    // Not asked for by the configuration.
    let (code, page) = front.get("/logs/?query=cron").await;
    assert!(code == 200 && page.contains("app.log"));
    assert_eq!(front.get("/logs/pods").await.0, 301);
    for bad in ["absent", "way-out", "..%2fsecret", "pods/../../secret"] {
        let (code, text) = front.get(&format!("/logs/{bad}")).await;
        assert!(code >= 400 && !text.contains("hidden"), "{bad}: {code}");
    }
    front.finish().await;
}

#[tokio::test]
async fn services_are_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let front = front(folder.path(), true, "journalctl").await;
    let asked = front.get("/logs/?query=cron&tailLines=5").await;
    let words = "--utc --no-pager --output=short-precise --pager-end --lines=5 --unit=cron";
    assert_eq!(asked, (200, format!("asked {words}\n")));
    // What the journal does not know may have a file.
    let by_file = front.get("/logs/?query=app").await;
    assert_eq!(by_file, (200, "one\ntwo\n".to_owned()));
    let (_, text) = front.get("/logs/?query=app&boot=0").await;
    let refused = "\noptions present and query resolved to log files for [app]\ntry without \
                   specifying options\n";
    assert_eq!(text, refused);
    let (_, text) = front.get("/logs/?query=nobody").await;
    assert_eq!(text, "\nlog not found for nobody\n");
    assert_eq!(front.get("/logs/?query=/app.log").await.1, "one\ntwo\n");
    assert_eq!(front.get("/logs/?query=/way-out").await.0, 406);
    assert_eq!(front.get("/logs/?query=%20").await.0, 400);
    assert_eq!(front.get("/logs/?query=cron&boot=1").await.0, 406);
    front.finish().await;
}

#[tokio::test]
async fn a_machine_without_a_journal_has_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let front = front(folder.path(), true, "absent").await;
    assert_eq!(front.get("/logs/?query=app").await.1, "one\ntwo\n");
    let (_, text) = front.get("/logs/?query=cron").await;
    assert_eq!(text, "\nlog not found for cron\n");
    front.finish().await;
    let off = Front::with(|config, _| config.system_logs = None).await;
    let expected = "logs endpoint is disabled.\n".to_owned();
    assert_eq!(off.get("/logs/").await, (405, expected));
    off.finish().await;
}
