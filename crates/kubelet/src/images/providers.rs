//! Credential providers: programs that know credentials of registries. They are asked once for what
//! they say holds for a while, and once at a time for the same image.

mod cache;
mod exec;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Client;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use node_api::AuthConfig;
use node_config::{CredentialProvider, TokenAttributes};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use volumes::Volumes;

use super::keyring::{Coordinates, Credentials, Keyring, Owner};
use crate::pod::PodExt;
use cache::{Cache, Key};
use exec::{Answer, CacheKeyType, Program, Request};

/// Stands for all images in the cache: no image has such a name.
const GLOBAL: &str = "<global>";

/// Programs that know credentials of registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProviders {
    /// Where the programs are.
    pub folder: PathBuf,
    pub providers: Vec<CredentialProvider>,
}

impl CredentialProviders {
    /// Whether every program is there and may be run.
    pub(crate) fn check(&self) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.folder.display();
        match std::fs::metadata(&self.folder) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("plugin binary directory {folder} did not exist"));
            }
            Err(error) => {
                return Err(format!(
                    "error inspecting binary directory {folder}: {error}"
                ));
            }
        }
        for provider in &self.providers {
            let path = self.folder.join(&provider.name);
            let shown = path.display();
            let found = std::fs::metadata(&path);
            let found = found.map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    format!("plugin binary executable {shown} did not exist")
                }
                _ => format!("error inspecting binary executable {shown}: {error}"),
            })?;
            if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
                return Err(format!(
                    "error inspecting binary executable {shown}: it is no program that may be run"
                ));
            }
        }
        Ok(())
    }
}

/// All providers of the node.
pub(super) struct Providers {
    plugins: Vec<Plugin>,
    client: Client,
    volumes: Volumes,
}

impl Providers {
    pub(super) fn new(
        config: Option<&CredentialProviders>,
        client: Client,
        volumes: Volumes,
    ) -> Providers {
        let plugins = config.into_iter().flat_map(|config| {
            let plugin = |settings| Plugin::new(&config.folder, settings);
            config.providers.iter().map(plugin)
        });
        Providers {
            plugins: plugins.collect(),
            client,
            volumes,
        }
    }

    /// What they know for a pod and the whole name of a repository. A provider that fails is as one
    /// that knows nothing.
    pub(super) async fn lookup(&self, pod: &Pod, repository: &str) -> Vec<Credentials> {
        let mut keyring = Keyring::default();
        for plugin in &self.plugins {
            if !plugin
                .settings
                .places
                .iter()
                .any(|place| place.holds(repository))
            {
                continue;
            }
            let known = match self.account(plugin, pod).await {
                Ok(Some(account)) => plugin.credentials(repository, account).await,
                Ok(None) => continue,
                Err(fault) => Err(fault),
            };
            match known {
                Ok((owner, all)) => {
                    for (server, auth) in all.iter() {
                        let (auth, owner) = (auth.clone(), owner.clone());
                        keyring.add(server, Credentials { auth, owner });
                    }
                }
                Err(error) => {
                    let (provider, pod) = (&plugin.settings.name, pod.display());
                    tracing::error!(%error, provider, image = repository, pod, "no credentials");
                }
            }
        }
        keyring.lookup(repository)
    }

    /// The service account by which a provider is asked; `None` where it is not to be asked.
    async fn account(&self, plugin: &Plugin, pod: &Pod) -> Result<Option<Account>, String> {
        let Some(wished) = &plugin.settings.token else {
            return Ok(Some(Account::default()));
        };
        let name = pod.spec().service_account_name.as_deref();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok((!wished.account_required).then(Account::default));
        };
        let accounts = self.client.namespaced::<ServiceAccount>(pod.namespace());
        let account = accounts.get(name).await;
        let account = account
            .map_err(|status| format!("failed to get service account: {}", status.message))?;
        let owner = Coordinates {
            namespace: pod.namespace().to_owned(),
            name: name.to_owned(),
            uid: account.metadata.uid.clone().unwrap_or_default(),
        };
        let Some(annotations) = annotations(&account, wished) else {
            tracing::debug!(
                provider = plugin.settings.name,
                account = name,
                "not opted in"
            );
            return Ok(None);
        };
        let token = self
            .volumes
            .account_token(pod, &wished.audience, &owner.uid);
        let token = token.await;
        let token =
            token.map_err(|error| format!("failed to get service account token: {error}"))?;
        Ok(Some(Account {
            owner: Some(owner),
            annotations,
            token,
        }))
    }
}

/// The annotations that a provider is told; `None` where one is missing that must be there.
fn annotations(
    account: &ServiceAccount,
    wished: &TokenAttributes,
) -> Option<BTreeMap<String, String>> {
    let value = |key: &String| account.metadata.annotations.as_ref()?.get(key).cloned();
    let required = wished.required_annotations.iter();
    let required: Option<BTreeMap<_, _>> = required
        .map(|key| Some((key.clone(), value(key)?)))
        .collect();
    let optional = wished.optional_annotations.iter();
    let mut all = required?;
    all.extend(optional.filter_map(|key| Some((key.clone(), value(key)?))));
    Some(all)
}

/// The service account that is asked for; empty where there is none.
#[derive(Default)]
struct Account {
    owner: Option<Coordinates>,
    annotations: BTreeMap<String, String>,
    token: String,
}

/// Credentials by server.
type Known = Arc<BTreeMap<String, AuthConfig>>;
/// What a running program will have said.
type Running = BoxFuture<'static, Result<Answer, String>>;

struct Plugin {
    settings: CredentialProvider,
    program: Arc<Program>,
    cache: Mutex<Cache>,
    /// Programs that run, by what they were asked; those who ask the same wait with them.
    running: Mutex<HashMap<Request, WeakShared<Running>>>,
}

impl Plugin {
    fn new(folder: &Path, settings: &CredentialProvider) -> Plugin {
        Plugin {
            program: Arc::new(Program::new(folder, settings)),
            settings: settings.clone(),
            cache: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// What is known for a repository, from earlier or from the program.
    async fn credentials(
        &self,
        repository: &str,
        account: Account,
    ) -> Result<(Owner, Known), String> {
        let owner = account.owner.clone().map_or(Owner::Node, Owner::Account);
        let by_token = self
            .settings
            .token
            .as_ref()
            .is_some_and(|token| token.cached_by_token);
        let key = |of: &str| Key {
            of: of.to_owned(),
            account: account.owner.clone(),
            annotations: account.annotations.clone(),
            token: by_token.then(|| Sha256::digest(&account.token).into()),
        };
        let registry = repository.split('/').next().unwrap_or_default();
        for of in [repository, registry, GLOBAL] {
            if let Some(known) = self.cache.lock().get(&key(of)) {
                return Ok((owner, known));
            }
        }
        let running = self.ask(Request {
            image: repository.to_owned(),
            token: account.token.clone(),
            annotations: account.annotations.clone(),
        });
        let answer = running.await.map_err(|error| {
            format!("failed to get credential from external registry credential provider: {error}")
        })?;
        let echoed = |auth: &AuthConfig| auth.password == account.token;
        if !account.token.is_empty() && !by_token && answer.auth.values().any(echoed) {
            return Err(
                "credential provider plugin returned the service account token as the password \
                 which is not allowed when service account cache type is not set to 'Token'"
                    .into(),
            );
        }
        let life = answer
            .cache_duration
            .unwrap_or(self.settings.cache_duration)
            .time();
        if !life.is_zero() {
            let of = match answer.cache_key_type {
                CacheKeyType::Image => repository,
                CacheKeyType::Registry => registry,
                CacheKeyType::Global => GLOBAL,
            };
            self.cache.lock().put(key(of), answer.auth.clone(), life);
        }
        Ok((owner, answer.auth))
    }

    /// Runs the program, or joins those who wait for the same answer.
    fn ask(&self, request: Request) -> Shared<Running> {
        let mut running = self.running.lock();
        if let Some(shared) = running.get(&request).and_then(WeakShared::upgrade) {
            return shared;
        }
        running.retain(|_, one| one.upgrade().is_some());
        let (program, asked) = (self.program.clone(), request.clone());
        let started: Running = async move { program.ask(&asked).await }.boxed();
        let shared = started.shared();
        if let Some(weak) = shared.downgrade() {
            running.insert(request, weak);
        }
        shared
    }
}
