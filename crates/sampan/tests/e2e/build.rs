//! Images made, sent and fetched by the docker command line.

use crate::docker::Engine;
use crate::registry::Registry;

/// Two stages, one of them with a script; the rest is what images say of themselves.
const FILES: &str = r#"
mkdir -p context/data && cd context
echo one > data/one; echo secret > data/hidden
printf 'data/hidden\n' > .dockerignore
cat > Dockerfile <<'END'
FROM busybox AS tools
ARG word=nothing
RUN echo "$word" > /word
RUN <<EOF
echo made in a script > /script
EOF
FROM busybox
COPY --from=tools /word /script /from/
COPY data /data/
ENV GREETING=hello
WORKDIR /data
USER 7:7
HEALTHCHECK --interval=1h CMD true
CMD echo $GREETING; cat /from/word /from/script; ls; id
END
"#;

#[test]
fn docker_builds_and_ships_images() {
    let Some(engine) = Engine::for_docker() else {
        return;
    };
    engine.ok(FILES);
    let build = "docker build -t made:1 --build-arg word=built context 2>&1";
    let first = engine.ok(build);
    assert!(first.contains("Successfully tagged made:1"), "{first}");
    assert_eq!(
        engine.ok("docker run --rm made:1"),
        "hello\nbuilt\nmade in a script\none\nuid=7 gid=7 groups=7\n"
    );
    let again = engine.ok(build);
    assert!(
        again.contains("Using cache") && !again.contains("Running in"),
        "{again}"
    );
    assert!(
        engine
            .ok("docker build -q --target tools context")
            .starts_with("sha256:")
    );
    engine.ok("docker build -q --iidfile id context && grep -q sha256: id");
    let failing = "printf 'FROM busybox\\nRUN exit 4\\n' | docker build - 2>&1";
    let failed = engine.code(4, failing);
    let words = "The command '/bin/sh -c exit 4' returned a non-zero code: 4";
    assert!(failed.contains(words), "{failed}");
    let health = "docker inspect made:1 --format '{{.Config.Healthcheck.Interval}}'";
    assert_eq!(engine.ok(health), "1h0m0s\n");
    containers_become_images(&engine);
    images_travel(&engine);
    assert!(engine.ok("docker builder prune -af 2>&1").contains("Total"));
    assert_eq!(engine.ok("docker ps -aq"), "");
}

fn containers_become_images(engine: &Engine) {
    engine.ok("docker run --name work busybox touch /touched");
    engine.ok("docker commit -m note -c 'CMD [\"ls\", \"/touched\"]' work kept");
    assert_eq!(engine.ok("docker run --rm kept"), "/touched\n");
    engine.ok("docker export work | docker import -c 'CMD [\"/bin/ls\", \"/touched\"]' - flat:1");
    assert_eq!(engine.ok("docker run --rm flat:1"), "/touched\n");
    engine.ok("docker rm work && docker rmi kept flat:1");
}

fn images_travel(engine: &Engine) {
    let registry = Registry::start(&engine.network());
    let at = format!("127.0.0.1:{}", registry.port);
    let login = |password: &str| {
        format!("echo {password} | docker login -u user --password-stdin {at} 2>&1")
    };
    let wrong = engine.code(1, &login("wrong"));
    assert!(wrong.contains("incorrect username or password"), "{wrong}");
    assert!(engine.ok(&login("secret")).contains("Login Succeeded"));
    engine.ok(&format!(
        "docker tag made:1 {at}/team/made:1 && docker push {at}/team/made:1"
    ));
    let again = engine.ok(&format!("docker push {at}/team/made:1"));
    assert!(again.contains("Layer already exists"), "{again}");
    engine.ok(&format!("docker rmi {at}/team/made:1 made:1"));
    let run = engine.ok(&format!(
        "docker run --rm {at}/team/made:1 cat /from/word 2>/dev/null"
    ));
    assert_eq!(run, "built\n");
    engine.code(
        1,
        &format!("docker logout {at} && docker push {at}/team/made:1"),
    );
}
