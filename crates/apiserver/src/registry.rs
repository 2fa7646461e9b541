//! Which resources there are, by path; custom resources come and go while the server runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use encryption::Encryption;
use kinds::Row;
use meta::{GroupVersion, Status};
use schema::TypeRef;
use serde_json::Value;

use crate::cache::{Cache, Observer, encode};
use crate::runtime_config::{RuntimeConfig, RuntimeConfigError};

/// One resource: its rules, its shape, and the cache of its objects.
pub(crate) struct Resource {
    pub(crate) row: Row,
    /// `None`: any tree is taken as it is.
    pub(crate) ty: Option<TypeRef>,
    /// `None` for questions that are answered and not kept.
    pub(crate) cache: Option<Arc<Cache>>,
    /// Whether clients made the kind (a CRD).
    pub(crate) custom: bool,
    /// How objects are kept, when that is not how they are shown.
    pub(crate) seen: Option<Seen>,
    /// How custom resources are converted between versions; `seen` then converts nothing.
    pub(crate) conversion: Option<Arc<crate::custom::Conversion>>,
    /// Changes whenever the shape does.
    pub(crate) stamp: i64,
    /// The structural schema of a custom resource.
    pub(crate) shape: Option<Arc<::custom::Structural>>,
    /// What OpenAPI documents say of a custom resource.
    pub(crate) published: Option<::custom::publish::Published>,
    /// What users of a deprecated version are told.
    pub(crate) deprecation: Option<String>,
    /// Nothing may be created any more: the definition is about to go.
    pub(crate) terminating: bool,
}

/// Changes a tree from one version to another.
pub(crate) type Convert = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// A version whose objects are kept in another.
pub(crate) struct Seen {
    pub(crate) stored: Arc<Resource>,
    pub(crate) to_stored: Convert,
    pub(crate) from_stored: Convert,
    /// As [`kinds::View::fields`].
    pub(crate) fields: &'static [(&'static str, &'static str)],
}

impl Resource {
    /// The resource of a built-in kind.
    fn builtin(
        row: &Row,
        observer: Option<Arc<dyn Observer>>,
        encryption: Option<&Arc<Encryption>>,
    ) -> Resource {
        let names = &row.names;
        let ty = schema::builtin(&names.group, &names.version, &names.kind);
        let ty = ty.and_then(|ty| schema::table::reference(&ty.name));
        if ty.is_none() {
            tracing::warn!(
                kind = names.kind,
                group = names.group,
                "kind without a schema"
            );
        }
        let kept = row.verbs.keep();
        let cache = |row: &Row| {
            let strategy = Arc::clone(&row.strategy);
            let cache = Cache::new(storage_prefix(row), strategy, observer);
            Arc::new(cache.sealed(encryption, &row.names))
        };
        Resource {
            ty,
            cache: kept.then(|| cache(row)),
            row: row.clone(),
            custom: false,
            conversion: None,
            seen: None,
            stamp: 0,
            shape: None,
            published: None,
            deprecation: row.deprecation.map(str::to_owned),
            terminating: false,
        }
    }

    /// Another version of a built-in kind that is kept already.
    fn view(view: &kinds::View, stored: Arc<Resource>) -> Option<Resource> {
        let row = view.row()?;
        let names = &row.names;
        let ty = schema::builtin(&names.group, &names.version, &names.kind);
        Some(Resource {
            ty: ty.and_then(|ty| schema::table::reference(&ty.name)),
            cache: stored.cache.clone(),
            row,
            custom: false,
            conversion: None,
            seen: Some(Seen {
                stored,
                to_stored: Arc::new(view.to_stored),
                from_stored: Arc::new(view.from_stored),
                fields: view.fields,
            }),
            stamp: 0,
            shape: None,
            published: None,
            deprecation: None,
            terminating: false,
        })
    }

    /// The resource that keeps the objects: this one, or the one it is a version of.
    pub(crate) fn stored(&self) -> &Resource {
        self.seen.as_ref().map_or(self, |seen| &seen.stored)
    }

    /// The type behind the protobuf form; custom resources have none.
    pub(crate) fn protobuf(&self) -> Option<&schema::Type> {
        match &self.ty {
            Some(ty) if !self.custom => Some(ty.get()),
            _ => None,
        }
    }

    /// An object of this version as it is kept.
    pub(crate) fn kept(&self, mut tree: Value) -> Value {
        if let Some(seen) = self.seen.as_ref().filter(|_| self.conversion.is_none()) {
            (seen.to_stored)(&mut tree);
        }
        tree
    }

    /// A kept object as this version shows it.
    pub(crate) fn shown(&self, mut tree: Value) -> Value {
        if let Some(seen) = self.seen.as_ref().filter(|_| self.conversion.is_none()) {
            (seen.from_stored)(&mut tree);
        }
        tree
    }

    /// The same on encoded objects; shares the bytes where nothing changes.
    pub(crate) fn shown_json(&self, json: &Bytes) -> Bytes {
        if self.seen.is_none() || self.conversion.is_some() {
            return json.clone();
        }
        match serde_json::from_slice(json) {
            Ok(tree) => encode(&self.shown(tree)).into(),
            Err(_) => json.clone(),
        }
    }

    /// The cache; 405 for questions.
    pub(crate) fn cache(&self) -> Result<&Arc<Cache>, Status> {
        self.cache.as_ref().ok_or_else(method_not_allowed)
    }

    /// The key of an object within the cache.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        match self.row.names.is_namespaced() {
            true => format!("{namespace}/{name}"),
            false => name.to_owned(),
        }
    }
}

/// 405, as upstream says it.
pub(crate) fn method_not_allowed() -> Status {
    Status::new(
        meta::Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// Where objects of a kind are stored: upstream's layout.
pub(crate) fn storage_prefix(row: &Row) -> String {
    let names = &row.names;
    let part = match (names.group.as_str(), names.plural.as_str()) {
        ("", "replicationcontrollers") => "controllers",
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiextensions.k8s.io", plural) => return custom_prefix("apiextensions.k8s.io", plural),
        ("apiregistration.k8s.io", plural) => {
            return custom_prefix("apiregistration.k8s.io", plural);
        }
        (_, plural) => plural,
    };
    format!("{}{part}/", crate::cache::feed::ROOT)
}

/// Where custom resources are stored.
pub(crate) fn custom_prefix(group: &str, plural: &str) -> String {
    format!("{}{group}/{plural}/", crate::cache::feed::ROOT)
}

/// An immutable view of all resources.
#[derive(Clone, Default)]
pub(crate) struct Resources {
    by_path: HashMap<String, Arc<Resource>>,
    /// Groups in the order discovery shows them, each with its versions in order.
    pub(crate) groups: Vec<(String, Vec<String>)>,
    /// Resources of a group and version, by plural.
    by_group_version: BTreeMap<(String, String), Vec<Arc<Resource>>>,
    /// The preferred version's resource by `pods` or `deployments.apps`.
    by_group_resource: HashMap<String, Arc<Resource>>,
    /// Resources that are kept but not served.
    hidden: Vec<Arc<Resource>>,
}

impl Resources {
    fn add(&mut self, resource: Arc<Resource>) {
        let names = &resource.row.names;
        let (group, version) = (names.group.clone(), names.version.clone());
        match self.groups.iter_mut().find(|(own, _)| *own == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version.clone()),
            None => self.groups.push((group.clone(), vec![version.clone()])),
        }
        self.by_path.insert(
            path_key(&group, &version, &names.plural),
            Arc::clone(&resource),
        );
        self.by_group_resource
            .entry(names.group_resource())
            .or_insert_with(|| Arc::clone(&resource));
        let list = self.by_group_version.entry((group, version)).or_default();
        list.push(resource);
        list.sort_by(|a, b| a.row.names.plural.cmp(&b.row.names.plural));
    }

    /// Forgets the custom resource of that name in all versions.
    fn remove_custom(&mut self, group: &str, plural: &str) {
        let is_meant = |resource: &Resource| {
            let names = &resource.row.names;
            resource.custom && names.group == group && names.plural == plural
        };
        self.by_path.retain(|_, resource| !is_meant(resource));
        self.by_group_resource
            .retain(|_, resource| !is_meant(resource));
        for list in self.by_group_version.values_mut() {
            list.retain(|resource| !is_meant(resource));
        }
        self.forget_empty();
    }

    /// Takes what is switched off out of all that clients see.
    fn hide(&mut self, runtime: &RuntimeConfig) {
        let is_served = |resource: &Resource| {
            let names = &resource.row.names;
            runtime.serves(&names.group, &names.version, &names.plural)
        };
        for list in self.by_group_version.values_mut() {
            let (served, hidden) = list.drain(..).partition(|own| is_served(own));
            *list = served;
            self.hidden.extend::<Vec<_>>(hidden);
        }
        self.by_path.retain(|_, resource| is_served(resource));
        self.forget_empty();
    }

    /// Forgets groups and versions without resources.
    fn forget_empty(&mut self) {
        self.by_group_version.retain(|_, list| !list.is_empty());
        let left = &self.by_group_version;
        for (group, versions) in &mut self.groups {
            versions.retain(|version| left.contains_key(&(group.clone(), version.clone())));
        }
        self.groups.retain(|(_, versions)| !versions.is_empty());
    }

    /// The resource at a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&path_key(group, version, plural)).cloned()
    }

    /// The resource that `pods` or `deployments.apps` means.
    pub(crate) fn by_name(&self, group_resource: &str) -> Option<&Arc<Resource>> {
        self.by_group_resource.get(group_resource)
    }

    /// The resource of a kind.
    pub(crate) fn by_kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        let mut all = self.all();
        all.find(|own| own.row.names.group == group && own.row.names.kind == kind)
            .cloned()
    }

    /// The resources of a group and version, by plural.
    pub(crate) fn of(&self, group: &str, version: &str) -> Option<&[Arc<Resource>]> {
        let key = (group.to_owned(), version.to_owned());
        self.by_group_version.get(&key).map(Vec::as_slice)
    }

    /// All groups and versions in the order of discovery.
    pub(crate) fn group_versions(&self) -> impl Iterator<Item = GroupVersion> {
        self.groups.iter().flat_map(|(group, versions)| {
            versions.iter().map(|version| GroupVersion {
                group: group.clone(),
                version: version.clone(),
            })
        })
    }

    /// All resources.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_group_version.values().flatten()
    }
}

fn path_key(group: &str, version: &str, plural: &str) -> String {
    format!("{group}/{version}/{plural}")
}

/// The resources that there are now.
pub(crate) struct Registry {
    now: ArcSwap<Resources>,
}

impl Registry {
    /// All built-in kinds. `observer` may ask to be told of a resource's objects.
    pub(crate) fn builtin(
        observer: impl Fn(&str) -> Option<Arc<dyn Observer>>,
        encryption: Option<&Arc<Encryption>>,
    ) -> Registry {
        let mut resources = Resources::default();
        for row in kinds::rows() {
            let name = row.names.group_resource();
            let mut row = row.clone();
            if name == crate::custom::RESOURCE {
                // Its rules are those of schemas, which kinds know nothing of.
                row.strategy = Arc::new(::custom::definition::DefinitionStrategy);
            }
            resources.add(Arc::new(Resource::builtin(
                &row,
                observer(&name),
                encryption,
            )));
        }
        for view in kinds::views() {
            let stored = resources.by_kind(view.stored.0, view.stored.1);
            if let Some(resource) = stored.and_then(|stored| Resource::view(view, stored)) {
                resources.add(Arc::new(resource));
            }
        }
        Registry {
            now: ArcSwap::from_pointee(resources),
        }
    }

    /// Serves no more than this says; the process itself goes on to use what it keeps.
    pub(crate) fn serve(&self, runtime: &RuntimeConfig) -> Result<(), RuntimeConfigError> {
        let known: Vec<GroupVersion> = self.now().group_versions().collect();
        runtime.check(&known)?;
        self.now.rcu(|now| {
            let mut resources = Resources::clone(now);
            resources.hide(runtime);
            resources
        });
        Ok(())
    }

    /// Puts the versions of a custom resource in the place of those that were served.
    pub(crate) fn replace_custom(&self, group: &str, plural: &str, new: Vec<Arc<Resource>>) {
        self.now.rcu(|now| {
            let mut resources = Resources::clone(now);
            resources.remove_custom(group, plural);
            new.iter()
                .for_each(|resource| resources.add(Arc::clone(resource)));
            resources
        });
    }

    /// The resources at this moment.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Resources>> {
        self.now.load()
    }

    /// The caches of all resources.
    pub(crate) fn caches(&self) -> Vec<Arc<Cache>> {
        let now = self.now();
        let all = now.all().chain(&now.hidden);
        all.filter_map(|resource| resource.cache.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_has_a_shape() {
        let rows = kinds::rows().iter().map(|row| &row.names);
        let views = kinds::views().iter().map(|view| &view.names);
        for names in rows.chain(views) {
            let shape = schema::builtin(&names.group, &names.version, &names.kind);
            assert!(shape.is_some(), "{}", names.group_resource());
        }
    }
}
