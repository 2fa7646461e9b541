//! Files that say what they shall, and files that do not.

use super::*;

fn stage(text: &str) -> Stage {
    parse(text).unwrap().stages.remove(0)
}

fn only(text: &str) -> Instruction {
    let mut stage = stage(&format!("FROM scratch\n{text}"));
    assert_eq!(stage.steps.len(), 1, "{text}");
    stage.steps.remove(0).instruction
}

fn fault(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn lines_comments_and_continuations() {
    let file = parse(
        "# syntax=docker/dockerfile:1\n# escape=`\n\nARG v=1\n# a comment\nfrom base:$v as One\n  run a `\n# between\n\n    b `  \n  && c\nCMD [\"x\", \"y\\u0041\"]\n",
    )
    .unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.arguments.len(), 1);
    let stage = &file.stages[0];
    assert_eq!(
        (stage.base.as_str(), stage.name.as_deref()),
        ("base:$v", Some("one"))
    );
    assert_eq!(stage.source, "FROM base:$v as One");
    assert_eq!(
        (stage.steps[0].line, stage.steps[0].source.as_str()),
        (7, "RUN a     b   && c")
    );
    let command = Command::Exec(vec!["x".to_owned(), "yA".to_owned()]);
    assert_eq!(stage.steps[1].instruction, Instruction::Cmd(command));
    // After another comment a directive is a comment, too.
    assert_eq!(
        parse("# hi\n# escape=`\nFROM x\nRUN a \\\n b")
            .unwrap()
            .escape,
        '\\'
    );
}

#[test]
fn here_documents() {
    let Instruction::Run(run) = only("RUN <<EOF\n# not a comment\necho \"$x\"\nEOF\n") else {
        panic!()
    };
    assert_eq!(
        run.command,
        Command::Shell("# not a comment\necho \"$x\"\n".to_owned())
    );
    let Instruction::Run(run) = only("RUN cat <<-'A' <<B > /x\n\tone\n\tA\ntwo\nB") else {
        panic!()
    };
    assert_eq!(run.documents[0].text, "one\n");
    assert!(!run.documents[0].expands && run.documents[1].expands);
    let wanted = "cat <<-'A' <<B > /x\none\nA\ntwo\nB";
    assert_eq!(run.command, Command::Shell(wanted.to_owned()));
    let Instruction::Copy(copy) = only("COPY <<a <<\"b\" plain /to/\n1\na\n2\nb") else {
        panic!()
    };
    assert_eq!(
        (copy.sources.as_slice(), copy.documents.len()),
        (&["plain".to_owned()][..], 2)
    );
    assert_eq!(
        fault("FROM x\nRUN <<EOF\nnever"),
        "dockerfile parse error on line 2: unterminated heredoc"
    );
    // Elsewhere they are words like others.
    assert_eq!(stage("FROM x\nENV a=<<EOF\nUSER u").steps.len(), 2);
}

#[test]
fn flags_and_mounts() {
    let Instruction::Copy(copy) = only(
        "COPY --from=one --chown=1:2 --chmod=755 --link --exclude=*.md --exclude=*.txt [\"a b\", \"/c\"]",
    ) else {
        panic!()
    };
    assert_eq!(copy.from.as_deref(), Some("one"));
    assert_eq!(
        (copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("1:2"), Some("755"))
    );
    assert_eq!(
        (copy.sources[0].as_str(), copy.target.as_str()),
        ("a b", "/c")
    );
    assert_eq!(copy.exclude, ["*.md", "*.txt"]);
    let Instruction::Run(run) = only(
        "RUN --network=none --mount=type=cache,target=/c,sharing=locked,mode=0700 --mount=type=tmpfs,target=/t,size=64m --mount=type=secret,id=key,required --mount=target=/src,rw make",
    ) else {
        panic!()
    };
    assert_eq!(run.network.as_deref(), Some("none"));
    assert_eq!(
        (run.mounts[0].sharing, run.mounts[0].mode),
        (Sharing::Locked, Some(0o700))
    );
    assert_eq!(run.mounts[1].size, 64 << 20);
    assert!(run.mounts[2].required && run.mounts[2].id.as_deref() == Some("key"));
    assert!(run.mounts[3].kind == MountKind::Bind && !run.mounts[3].readonly);
    let check = only("HEALTHCHECK --interval=1m30s --retries=3 CMD curl localhost");
    let Instruction::Healthcheck(check) = check else {
        panic!()
    };
    assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
    assert_eq!(check.test, ["CMD-SHELL", "curl localhost"]);
}

#[test]
fn pairs_in_both_forms() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        only("ENV a=1 b=\"x y\" c=z\\ w"),
        Instruction::Env(vec![
            pair("a", "1"),
            pair("b", "\"x y\""),
            pair("c", "z\\ w")
        ])
    );
    assert_eq!(
        only("ENV a  b  c"),
        Instruction::Env(vec![pair("a", "b  c")])
    );
    let arguments = vec![
        ("a".to_owned(), None),
        ("b".to_owned(), Some("1".to_owned())),
    ];
    assert_eq!(only("ARG a b=1"), Instruction::Arg(arguments));
    assert_eq!(
        only("ONBUILD run make"),
        Instruction::Onbuild("RUN make".to_owned())
    );
}

#[test]
fn faults_name_their_lines() {
    for (text, message) in [
        ("FROM x\n\nFOO bar", "line 3: unknown instruction: FOO"),
        (
            "FROM a b",
            "line 1: FROM requires either one or three arguments",
        ),
        (
            "FROM a AS 1x",
            "line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("RUN x", "line 1: no build stage in current context"),
        (
            "FROM x\nCOPY a",
            "line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM x\nCOPY --bad=1 a b", "line 2: unknown flag: --bad"),
        (
            "FROM x\nCOPY --from=a --from=b a b",
            "line 2: duplicate flag specified: from",
        ),
        ("FROM x\nENV a", "line 2: ENV must have two arguments"),
        (
            "FROM x\nENV a=1 b",
            "line 2: Syntax error - can't find = in \"b\". Must be of the form: name=value",
        ),
        (
            "FROM x\nONBUILD ONBUILD RUN x",
            "line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM x\nONBUILD FROM y",
            "line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM x\nHEALTHCHECK FOO",
            "line 2: Unknown type \"FOO\" in HEALTHCHECK (try CMD)",
        ),
        (
            "FROM x\nHEALTHCHECK --interval=1 CMD x",
            "line 2: time: invalid duration \"1\"",
        ),
        (
            "FROM x\nSHELL sh -c",
            "line 2: SHELL requires the arguments to be in JSON form",
        ),
        ("FROM x\nRUN", "line 2: RUN requires at least one argument"),
        (
            "FROM x\nRUN --mount=type=door,target=/x y",
            "line 2: unsupported mount type \"door\"",
        ),
    ] {
        assert_eq!(
            fault(text),
            format!("dockerfile parse error on {message}"),
            "{text}"
        );
    }
    assert_eq!(fault(" \n"), "the Dockerfile cannot be empty");
    assert_eq!(fault("# only\n"), "file with no instructions");
    assert_eq!(fault("ARG a"), "no build stage in current context");
    assert!(parse_one("RUN a\nRUN b").is_err() && parse_one("FROM a").is_err());
}

mod any {
    use proptest::prelude::*;

    /// Pieces that mean something, so that chance gets somewhere.
    fn text() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            Just("FROM ".to_owned()),
            Just("\nRUN ".to_owned()),
            Just("\nCOPY --from=".to_owned()),
            Just("\nONBUILD ".to_owned()),
            Just("\nHEALTHCHECK --interval=".to_owned()),
            Just("\nENV ".to_owned()),
            Just("<<EOF".to_owned()),
            Just("\nEOF\n".to_owned()),
            Just("--mount=type=cache,".to_owned()),
            Just("[\"".to_owned()),
            Just("\\u00".to_owned()),
            Just("\\\n".to_owned()),
            Just("# escape=`\n".to_owned()),
            Just("${x".to_owned()),
            Just("##*}".to_owned()),
            Just("//".to_owned()),
            Just(":-".to_owned()),
            "\\PC{0,6}",
            "[\\s\"'\\\\$`=,<>{}-]{0,4}",
        ];
        prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn nothing_panics(text in text()) {
            let _ = crate::dockerfile::parse(&text);
            let _ = crate::dockerfile::parse_one(&text);
            let lookup = |name: &str| (name.len() % 2 == 1).then(|| format!("<{name}>"));
            let expander = crate::Expander { escape: '\\', lookup: &lookup };
            let _ = expander.word(&text);
            let _ = expander.words(&text);
            let _ = expander.text(&text);
        }
    }
}
