//! Volumes that gather several sources: ConfigMaps, Secrets, the downward API
//! and service account tokens.

use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, VolumeProjection};

use crate::fields::PodFacts;
use crate::payload::{MODE_DEFAULT, Payload, mode_or};
use crate::sources::Sources;
use crate::tokens::{TokenWish, Tokens};
use crate::{VolumeError, config_map, downward_api, secret};

/// What projections draw from.
pub(crate) struct Context<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) tokens: &'a Tokens,
    pub(crate) pod: &'a Pod,
    pub(crate) facts: &'a PodFacts,
}

pub(crate) async fn payload(
    context: &Context<'_>,
    source: &ProjectedVolumeSource,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::default();
    let mode = mode_or(source.default_mode, MODE_DEFAULT);
    for part in source.sources.iter().flatten() {
        project(context, part, mode, &mut payload).await?;
    }
    Ok(payload)
}

async fn project(
    context: &Context<'_>,
    part: &VolumeProjection,
    mode: u32,
    payload: &mut Payload,
) -> Result<(), VolumeError> {
    let namespace = context
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    if let Some(source) = &part.config_map {
        let named = (source.name.as_str(), source.items.as_ref());
        let rules = (mode, source.optional == Some(true));
        return config_map::project(context.sources, namespace, named, rules, payload).await;
    }
    if let Some(source) = &part.secret {
        let named = (source.name.as_str(), source.items.as_ref());
        let rules = (mode, source.optional == Some(true));
        return secret::project(context.sources, namespace, named, rules, payload).await;
    }
    if let Some(source) = &part.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return downward_api::project(context.pod, context.facts, items, mode, payload);
    }
    if let Some(source) = &part.service_account_token {
        let wish = TokenWish::of(context.pod, source);
        let token = context.tokens.get(&wish).await?;
        let earlier = payload.refresh_at.is_none_or(|at| token.refresh_at < at);
        if earlier {
            payload.refresh_at = Some(token.refresh_at);
        }
        let user = common_user(context.pod);
        let group = fs_group(context.pod);
        let mode = if user.is_some() || group.is_some() {
            0o600
        } else {
            mode
        };
        return payload.add_owned(&source.path, token.text.into_bytes(), mode, user);
    }
    Err(VolumeError::Refused(
        "this projection is not supported by this node".to_owned(),
    ))
}

fn fs_group(pod: &Pod) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    spec.security_context.as_ref()?.fs_group
}

/// The user all containers run as, when they name the same one.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let shared = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut users = all.map(|container| {
        let own = container
            .security_context
            .as_ref()
            .and_then(|s| s.run_as_user);
        own.or(shared)
    });
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    same.then(|| u32::try_from(first).ok()).flatten()
}
