//! Images that are built, committed, imported.

use serde_json::{Value, json};

use crate::host::Host;

/// An archive of these files.
pub(crate) fn context(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

/// What a build has said: its text, and its error.
fn said(body: &[u8]) -> (String, Option<Value>) {
    let (mut text, mut fault) = (String::new(), None);
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let line = line.unwrap();
        text += line["stream"].as_str().unwrap_or_default();
        if line.get("error").is_some() {
            fault = Some(line["errorDetail"].clone());
        }
    }
    (text, fault)
}

impl Host {
    pub(crate) fn build(&self, query: &str, files: &[(&str, &str)]) -> (String, Option<Value>) {
        let path = format!("/build?networkmode=none&{query}");
        let answer = self.send("POST", &path, "application/x-tar", &context(files));
        assert_eq!(answer.status, 200, "{}", answer.text());
        said(&answer.body)
    }

    /// Builds, and expects that it works.
    pub(crate) fn built(&self, query: &str, files: &[(&str, &str)]) -> String {
        let (text, fault) = self.build(query, files);
        assert_eq!(fault, None, "{text}");
        text
    }

    /// What a script prints in a container of an image.
    pub(crate) fn output(&self, image: &str, script: &str) -> String {
        let more = json!({"Image": image, "Entrypoint": [""]});
        self.create("probe", script, more);
        self.start("probe");
        self.wait("probe");
        let logs = self.get("/containers/probe/logs?stdout=1&stderr=1");
        let (out, err) = crate::host::split(&logs.body);
        assert_eq!(self.remove("probe").status, 204);
        out + &err
    }

    fn image(&self, name: &str) -> Value {
        let found = self.get(&format!("/images/{name}/json"));
        assert_eq!(found.status, 200, "{}", found.text());
        found.json()
    }
}

const STAGES: &str = r#"# syntax=docker/dockerfile:1
ARG base=busybox
FROM ${base} AS tools
ARG word=nothing
RUN echo "$word" > /word
RUN <<EOF
echo one > /doc
echo two >> /doc
EOF

FROM ${base} AS unused
RUN exit 9

FROM ${base}
LABEL stage=last
COPY --from=tools /word /doc /from/
COPY --chown=user:7 --chmod=640 data/ /data/
COPY *.txt /texts/
COPY <<"TEXT" /text
$literal
TEXT
RUN rm /data/seed && busybox mkdir /hollow && touch /hollow/x
ENV A=1 B="${word:-none} two"
WORKDIR /made/here
VOLUME /kept
EXPOSE 80 53/udp
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
USER user
RUN id
ENTRYPOINT ["cat"]
CMD ["/from/doc"]
"#;

#[test]
fn stages_and_steps_make_an_image_and_the_cache_makes_it_again() {
    let host = Host::new();
    let files = [
        ("Dockerfile", STAGES),
        (".dockerignore", "secret.txt\n**/*.tmp\nDockerfile\n"),
        ("data/a", "A\n"),
        ("data/b.tmp", "B\n"),
        ("one.txt", "1\n"),
        ("two.txt", "2\n"),
        ("secret.txt", "3\n"),
    ];
    let query = "t=made&t=made:2&buildargs=%7B%22word%22%3A%22hi%22%2C%22odd%22%3A%22x%22%7D&labels=%7B%22by%22%3A%22test%22%7D";
    let text = host.built(query, &files);
    assert!(text.contains("Step 1/22 : FROM ${base} AS tools"), "{text}");
    assert!(text.contains("Successfully tagged made:2\n") && !text.contains("Using cache"));
    assert!(text.contains("One or more build-args [\"odd\"] were not consumed"));
    assert!(text.contains("uid=7(user)"), "{text}");
    let shown =
        "cat /from/word /from/doc /text; id; ls -ln /data /texts; ls /hollow; busybox pwd; echo $B";
    let seen = host.output("made", shown);
    for part in [
        "hi\none\ntwo\n$literal\nuid=7(user)",
        "-rw-r-----    1 7        7 ",
        " one.txt\n",
        "\nx\n/made/here\nnone two\n",
    ] {
        assert!(seen.contains(part), "{part:?} in {seen}");
    }
    assert!(!seen.contains("seed") && !seen.contains("b.tmp") && !seen.contains("secret"));
    let image = host.image("made");
    let config = &image["Config"];
    assert_eq!(config["Entrypoint"], json!(["cat"]));
    assert_eq!(config["User"], "user");
    assert_eq!(
        config["Labels"],
        json!({"by": "test", "maker": "test", "stage": "last"})
    );
    assert_eq!(config["Healthcheck"]["Interval"], 5_000_000_000_i64);
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!(config["Volumes"], json!({"/kept": {}}));
    assert_eq!(config["StopSignal"], "SIGINT");
    let again = host.built(query, &files);
    assert_eq!(again.matches("Using cache").count(), 20, "{again}");
    assert_eq!(host.image("made")["Id"], image["Id"]);
    // Another file is another image from there on.
    let mut other = files;
    other[2].1 = "other\n";
    let third = host.built(query, &other);
    assert!(third.contains("Using cache") && third.contains("Running in"));
    let history = host.get("/images/made:2/history").json();
    let first = history.as_array().unwrap().last().unwrap();
    assert_eq!(first["CreatedBy"], "COPY busybox");
    assert_eq!(history[0]["CreatedBy"], "/bin/sh -c #(nop)  LABEL by=test");
    let pruned = host.post("/build/prune?all=1", &Value::Null).json();
    assert!(pruned["CachesDeleted"].as_array().unwrap().len() > 19);
    assert_eq!(host.get("/system/df").json()["BuildCache"], json!([]));
    assert!(host.built(query, &other).contains("Running in"));
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn what_fails_says_so_and_leaves_nothing() {
    let host = Host::new();
    let wrong = |file: &str| host.build("", &[("Dockerfile", file)]);
    let (text, fault) = wrong("FROM busybox\nRUN echo before; exit 3\nRUN echo never");
    let message = "The command '/bin/sh -c echo before; exit 3' returned a non-zero code: 3";
    assert_eq!(fault, Some(json!({"code": 3, "message": message})));
    assert!(text.contains("before\n") && !text.contains("Step 3"));
    for (file, message) in [
        (
            "FROM busybox\nCOPY no /x",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat no: file does not exist",
        ),
        (
            "FROM busybox\nCOPY ../x /x",
            "COPY failed: forbidden path outside the build context: ../x ()",
        ),
        (
            "FROM busybox\nCOPY --from=busybox /no /x",
            "COPY failed: stat /no: file does not exist",
        ),
        (
            "FROM busybox\nCOPY --chown=nobody9 Dockerfile /x",
            "unable to convert uid/gid chown string to host mapping: can't find uid for user nobody9: no such user: nobody9",
        ),
        (
            "FROM busybox\nENV a=${x:?needed}",
            "failed to process \"${x:?needed}\": x: needed",
        ),
        (
            "FROM busybox\nRUN --mount=type=secret,id=key,required true",
            "secret key: not found",
        ),
    ] {
        let (text, fault) = wrong(file);
        assert_eq!(fault.unwrap_or_default()["message"], message, "{text}");
    }
    for (file, message) in [
        (
            "FROM busybox\nFOO x",
            "dockerfile parse error on line 2: unknown instruction: FOO",
        ),
        (" ", "the Dockerfile cannot be empty"),
    ] {
        let archive = context(&[("Dockerfile", file)]);
        let answer = host.send("POST", "/build", "application/x-tar", &archive);
        let said = answer.json();
        assert_eq!(
            (answer.status, said["message"].as_str()),
            (400, Some(message))
        );
    }
    let answer = host.send(
        "POST",
        "/build?dockerfile=no",
        "application/x-tar",
        &context(&[]),
    );
    assert!(
        answer
            .text()
            .contains("Cannot locate specified Dockerfile: no")
    );
    assert_eq!(host.get("/images/json").json().as_array().unwrap().len(), 1);
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn mounts_of_steps() {
    let host = Host::new();
    let file = r#"FROM busybox AS other
RUN echo there > /given
FROM busybox
RUN --mount=type=cache,target=/cache,id=c echo one >> /cache/lines
RUN --mount=type=cache,target=/cache,id=c echo more >> /cache/lines; cat /cache/lines | busybox wc -l > /count
RUN --mount=type=bind,target=/src --mount=type=bind,from=other,source=/given,target=/given cat /src/file /given > /both
RUN --mount=type=bind,target=/src,rw echo x > /src/file; cat /src/file > /written
RUN --mount=type=tmpfs,target=/fast,size=1m touch /fast/x; ls /fast > /listed
RUN <<EOF
#!/bin/cat
interpreted
EOF
"#;
    let files = [("Dockerfile", file), ("file", "here\n")];
    let text = host.built("t=mounted", &files);
    assert!(text.contains("#!/bin/cat\ninterpreted\n"), "{text}");
    let seen = host.output(
        "mounted",
        "cat /count /both /written /listed; ls -a / /cache /src",
    );
    assert!(seen.starts_with("2\nhere\nthere\nx\nx\n"), "{seen}");
    // Places that only mounts made are not in the image.
    assert!(seen.contains("/cache: No such file"), "{seen}");
    assert!(!seen.contains("fast") && !seen.contains("given"), "{seen}");
    // The cache lasts, the step is done anew.
    let again = host.built("t=mounted&nocache=1", &files);
    assert!(!again.contains("Using cache"));
    assert!(host.output("mounted", "cat /count").starts_with('4'));
}

#[test]
fn the_same_moment_gives_the_same_bytes() {
    let host = Host::new();
    let file = "FROM busybox\nCOPY a /deep/er/a\n\
                RUN echo x > /made; busybox ln /made /linked\nWORKDIR /w\n\
                RUN rm -r /data && busybox mkdir /data && touch /data/new\n";
    let files = [("Dockerfile", file), ("a", "a")];
    let query = "t=same&nocache=1&buildargs=%7B%22SOURCE_DATE_EPOCH%22%3A%221700000000%22%7D";
    host.built(query, &files);
    let first = host.image("same")["Id"].clone();
    host.built(query, &files);
    assert_eq!(host.image("same")["Id"], first);
    let seen = host.output("same", "ls /data; busybox stat -c %h /made; cat /linked");
    assert_eq!(seen, "new\n2\nx\n");
    let created = host.image("same")["Created"].as_str().unwrap().to_owned();
    assert!(created.starts_with("2023-11-14T22:13:20"), "{created}");
}

#[test]
fn triggers_archives_and_shells() {
    let host = Host::new();
    let base = "FROM busybox\nONBUILD COPY file /triggered\nONBUILD RUN echo done > /done\n";
    host.built("t=base", &[("Dockerfile", base)]);
    let inner = context(&[("in/side", "packed\n")]);
    let mut archive = tar::Builder::new(Vec::new());
    let pressed = |tool: &str| {
        let mut child = std::process::Command::new(tool)
            .arg("-c")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &inner).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let (bzip2, xz) = (pressed("bzip2"), pressed("xz"));
    let file = "FROM base\nADD packed.tar /unpacked/\nCOPY packed.tar /\n\
                ADD packed.tar.bz2 /two/\nADD packed.tar.xz /three/\n\
                SHELL [\"/bin/sh\", \"-ec\"]\nRUN cat /triggered\nENTRYPOINT echo from shell\n";
    for (name, bytes) in [
        ("Dockerfile", file.as_bytes()),
        ("file", b"f\n"),
        ("packed.tar", &inner),
        ("packed.tar.bz2", &bzip2),
        ("packed.tar.xz", &xz),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let path = "/build?t=on&networkmode=none";
    let answer = host.send("POST", path, "application/x-tar", &archive);
    let (text, fault) = said(&answer.body);
    assert_eq!(fault, None, "{text}");
    assert!(text.contains("# Executing 2 build triggers") && text.contains("f\n"));
    let script = "cat /done /unpacked/in/side /two/in/side /three/in/side; ls -ln /unpacked/in/side /packed.tar";
    let seen = host.output("on", script);
    assert!(
        seen.starts_with("done\npacked\npacked\npacked\n") && seen.contains("1000     1000"),
        "{seen}"
    );
    let config = host.image("on")["Config"].clone();
    assert_eq!(
        config["Entrypoint"],
        json!(["/bin/sh", "-ec", "echo from shell"])
    );
    assert_eq!(config["OnBuild"], Value::Null);
}

#[test]
fn a_client_that_goes_away_ends_its_build() {
    let host = Host::new();
    let filter = "/events?filters=%7B%22event%22%3A%5B%22destroy%22%5D%7D";
    let mut events = host.open("GET", filter, b"");
    let archive = context(&[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")]);
    let mut client = host.open("POST", "/build?networkmode=none", &archive);
    client.read_until("begun\\n");
    drop(client);
    events.read_until("destroy");
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn a_build_can_be_told_to_stop() {
    let host = Host::new();
    let filter = "/events?filters=%7B%22event%22%3A%5B%22destroy%22%5D%7D";
    let mut events = host.open("GET", filter, b"");
    let archive = context(&[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")]);
    let mut client = host.open("POST", "/build?networkmode=none&buildid=mine", &archive);
    client.read_until("begun\\n");
    assert_eq!(host.post("/build/cancel", &Value::Null).status, 400);
    let other = host.post("/build/cancel?id=other", &Value::Null);
    assert_eq!(other.status, 200, "what is over needs no stop");
    let stopped = host.post("/build/cancel?id=mine", &Value::Null);
    assert_eq!(stopped.status, 200);
    client.read_until("build cancelled");
    events.read_until("destroy");
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
}

#[test]
fn a_death_in_the_middle_of_a_build_leaves_nothing() {
    let mut host = Host::new();
    let archive = context(&[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 1000\n")]);
    let mut client = host.open("POST", "/build?networkmode=none", &archive);
    client.read_until("begun\\n");
    host.kill();
    drop(client);
    host.boot();
    assert_eq!(host.get("/containers/json?all=1").json(), json!([]));
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let below = groups.group(&host.cgroup()).unwrap();
    assert_eq!(below.processes(), [], "no process of the step is left");
    for folder in [
        "docker/build/work",
        "docker/containers",
        "containers/images/leases",
    ] {
        let entries = std::fs::read_dir(host.folder().join(folder))
            .into_iter()
            .flatten();
        let left: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", host.pid())).unwrap();
    assert!(
        !mounts.contains(host.folder().to_str().unwrap()),
        "{mounts}"
    );
    // And the next one is none the worse for it.
    host.built(
        "t=fine",
        &[("Dockerfile", "FROM busybox\nRUN echo begun\n")],
    );
}

#[test]
fn containers_and_archives_become_images() {
    let host = Host::new();
    let env = json!({"Env": ["A=from create"]});
    host.create("work", "echo x > /new; rm /data/seed; echo $A", env);
    host.start("work");
    host.wait("work");
    let path = "/commit?container=work&repo=kept&tag=1&author=me&comment=why\
                &changes=CMD%20echo%20%24A&changes=ENV%20C%3Dd";
    let made = host.post(path, &Value::Null);
    assert_eq!(made.status, 201, "{}", made.text());
    let image = host.image("kept:1");
    assert_eq!(image["Id"], made.json()["Id"]);
    assert_eq!(
        (&image["Author"], &image["Comment"]),
        (&json!("me"), &json!("why"))
    );
    assert_eq!(image["Config"]["Cmd"], json!(["/bin/sh", "-c", "echo $A"]));
    let seen = host.output("kept:1", "cat /new; ls /data; echo $A $C");
    assert_eq!(seen, "x\nfrom create d\n");
    let wrong = host.post("/commit?container=work&changes=RUN%20x", &Value::Null);
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.json()["message"], "RUN is not a valid change command");
    let files = host.get("/containers/work/export").body;
    let path = "/images/create?fromSrc=-&repo=flat&changes=ENV%20PATH%3D%2Fbin&message=flat";
    let imported = host.send("POST", path, "application/x-tar", &files);
    assert!(imported.text().contains("sha256:"), "{}", imported.text());
    assert_eq!(host.output("flat", "cat /new"), "x\n");
    assert_eq!(
        host.get("/images/flat/history").json()[0]["Comment"],
        "flat"
    );
    host.remove("work");
}
