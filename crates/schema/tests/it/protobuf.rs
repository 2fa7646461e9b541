//! The protobuf form, against bytes worked out by hand from the published messages.

use schema::protobuf::{Envelope, MAGIC, ProtobufError, decode, encode, open, seal};
use schema::{builtin, check, named};
use serde_json::{Value, json};

fn both_ways(ty: &str, mut tree: Value) -> Vec<u8> {
    let ty = named(ty).unwrap();
    check(ty, &mut tree).unwrap();
    let bytes = encode(ty, &tree);
    let mut back = decode(ty, &bytes).unwrap();
    check(ty, &mut back).unwrap();
    assert_eq!(back, tree);
    bytes
}

#[test]
fn values_are_written_even_when_empty_and_pointers_are_not() {
    // ContainerPort: name 1, hostPort 2, containerPort 3, protocol 4, hostIP 5; all are values.
    let bytes = both_ways(
        "io.k8s.api.core.v1.ContainerPort",
        json!({"containerPort": 80, "protocol": "TCP"}),
    );
    assert_eq!(bytes, b"\x0a\x00\x10\x00\x18\x50\x22\x03TCP\x2a\x00");
    // DeploymentStrategy: type 1 is a value, rollingUpdate 2 a pointer.
    let bytes = both_ways(
        "io.k8s.api.apps.v1.DeploymentStrategy",
        json!({"type": "Recreate"}),
    );
    assert_eq!(bytes, b"\x0a\x08Recreate");
}

#[test]
fn scalars_with_a_message_of_their_own() {
    // RollingUpdateDeployment: maxUnavailable 1, maxSurge 2; IntOrString: type 1, intVal 2, strVal 3.
    let bytes = both_ways(
        "io.k8s.api.apps.v1.RollingUpdateDeployment",
        json!({"maxUnavailable": 1, "maxSurge": "25%"}),
    );
    assert_eq!(
        bytes,
        b"\x0a\x06\x08\x00\x10\x01\x1a\x00\x12\x09\x08\x01\x10\x00\x1a\x0325%"
    );
    let bytes = both_ways(
        "io.k8s.api.core.v1.ResourceRequirements",
        json!({"limits": {"cpu": "100m"}}),
    );
    assert_eq!(bytes, b"\x0a\x0d\x0a\x03cpu\x12\x06\x0a\x04100m");
    // LeaseSpec: acquireTime 3; Time: seconds 1, nanos 2.
    let bytes = both_ways(
        "io.k8s.api.coordination.v1.LeaseSpec",
        json!({"acquireTime": "1970-01-01T00:00:01.000001Z"}),
    );
    assert_eq!(bytes, b"\x1a\x05\x08\x01\x10\xe8\x07");
}

#[test]
fn inlined_messages_are_messages_again() {
    // Volume: name 1, volumeSource 2; VolumeSource: emptyDir 2; EmptyDirVolumeSource: medium 1.
    let bytes = both_ways(
        "io.k8s.api.core.v1.Volume",
        json!({"name": "v", "emptyDir": {}}),
    );
    assert_eq!(bytes, b"\x0a\x01v\x12\x04\x12\x02\x0a\x00");
}

#[test]
fn definitions_with_schemas_survive() {
    let schema = json!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "properties": {
            "a": {"type": "array", "items": {"type": "string", "maximum": 1.5, "enum": ["x", 1, null]}},
            "b": {"additionalProperties": false, "default": {"c": [1]}},
        },
        "dependencies": {"d": ["a", "b"]},
    });
    both_ways(
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation",
        json!({"openAPIV3Schema": schema}),
    );
}

#[test]
fn envelopes_open_as_they_were_sealed() {
    let ty = builtin("", "v1", "ConfigMap").unwrap();
    let mut tree = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}, "binaryData": {"b": "aGk="}});
    check(ty, &mut tree).unwrap();
    let sealed = seal("v1", "ConfigMap", &encode(ty, &tree));
    assert!(sealed.starts_with(&MAGIC));
    let envelope = open(&sealed).unwrap();
    assert_eq!(
        envelope,
        Envelope {
            api_version: "v1",
            kind: "ConfigMap",
            raw: envelope.raw,
            content_type: ""
        }
    );
    let mut back = decode(ty, envelope.raw).unwrap();
    check(ty, &mut back).unwrap();
    assert_eq!(back, tree);
    assert_eq!(open(b"{}"), Err(ProtobufError::Magic));
}

#[test]
fn broken_bytes_are_refused() {
    let ty = named("io.k8s.api.core.v1.ContainerPort").unwrap();
    assert_eq!(decode(ty, b"\x0a\x05ab"), Err(ProtobufError::Truncated));
    assert_eq!(
        decode(ty, b"\x08\x01"),
        Err(ProtobufError::WireType {
            wire: 0,
            field: "name".into()
        })
    );
    assert_eq!(
        decode(ty, b"\x0a\x01\xff"),
        Err(ProtobufError::Value("name".into()))
    );
    // A field that is not known here is skipped.
    assert_eq!(
        decode(ty, b"\xf8\x01\x01\x18\x50"),
        Ok(json!({"containerPort": 80}))
    );
    // Messages within messages, without end.
    let props =
        named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let not = props.field("not").unwrap().tag;
    let mut bytes = Vec::new();
    for _ in 0..300 {
        let mut outer = vec![(not << 3 | 2) as u8 | 0x80, (not >> 4) as u8];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(bytes);
        bytes = outer;
    }
    assert_eq!(decode(props, &bytes), Err(ProtobufError::Depth));
}
