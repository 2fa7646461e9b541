//! What the API server needs to know of a kind.

use std::sync::Arc;

use jiff::Timestamp;
use meta::{Faults, Names};
use serde_json::Value;

/// One column of kubectl's tables (`metav1.TableColumnDefinition`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// `name` for the name column, else mostly empty.
    pub format: String,
    pub description: String,
    /// 0 is always shown, above only with `-o wide`.
    pub priority: i32,
}

/// The cells of one table row, one per column.
pub type Cells = Vec<Value>;

/// Which verbs a kind answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// The same without delete of collections (such as namespaces and services have none).
    NoDeleteCollection,
    /// A question that is answered and not kept, such as SubjectAccessReview.
    CreateOnly,
    /// get and list of what is made up anew each time, such as ComponentStatus.
    Read,
}

impl Verbs {
    /// Whether objects are kept.
    pub fn keep(self) -> bool {
        matches!(self, Verbs::All | Verbs::NoDeleteCollection)
    }
}

/// Where `autoscaling/v1 Scale` reads and writes; JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Such as `/spec/replicas`.
    pub spec_replicas: String,
    /// Such as `/status/replicas`.
    pub status_replicas: String,
    /// Such as `/spec/selector`: a LabelSelector, or a text.
    pub selector: Option<String>,
}

/// Everything the generic path knows of one kind.
#[derive(Clone)]
pub struct Row {
    pub names: Names,
    pub verbs: Verbs,
    /// Whether there is a `/status` subresource: plain writes then leave `status` alone,
    /// and writes to `/status` leave all but `status` (and metadata's bookkeeping) alone.
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
    /// Whether `metadata.generation` counts changes of the specification.
    pub has_generation: bool,
    /// Whether an update may create the object (as for leases and endpoints).
    pub create_on_update: bool,
    /// Whether an update must say which version of the object it replaces.
    pub needs_version: bool,
    /// What everybody is told who uses the kind.
    pub deprecation: Option<&'static str>,
    pub columns: Arc<[Column]>,
    pub strategy: Arc<dyn Strategy>,
}

impl Row {
    /// A kind with all verbs and nothing special. `columns` reads as in `table::columns`.
    pub(crate) fn new(names: Names, columns: &str, strategy: impl Strategy) -> Row {
        Row {
            names,
            verbs: Verbs::All,
            has_status: false,
            scale: None,
            has_generation: false,
            create_on_update: false,
            needs_version: false,
            deprecation: None,
            columns: crate::table::columns(columns).into(),
            strategy: Arc::new(strategy),
        }
    }

    pub(crate) fn verbs(self, verbs: Verbs) -> Row {
        Row { verbs, ..self }
    }

    pub(crate) fn status(self) -> Row {
        Row {
            has_status: true,
            ..self
        }
    }

    pub(crate) fn generation(self) -> Row {
        Row {
            has_generation: true,
            ..self
        }
    }

    pub(crate) fn create_on_update(self) -> Row {
        Row {
            create_on_update: true,
            ..self
        }
    }

    pub(crate) fn needs_version(self) -> Row {
        Row {
            needs_version: true,
            ..self
        }
    }

    pub(crate) fn deprecated(self, warning: &'static str) -> Row {
        Row {
            deprecation: Some(warning),
            ..self
        }
    }

    /// `/scale` on `spec.replicas` and `status.replicas`, with `spec.selector`.
    pub(crate) fn scale(self) -> Row {
        Row {
            scale: Some(ScalePaths {
                spec_replicas: "/spec/replicas".into(),
                status_replicas: "/status/replicas".into(),
                selector: Some("/spec/selector".into()),
            }),
            ..self
        }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Whether anything but metadata and status differs.
pub(crate) fn is_moved(object: &Value, old: &Value) -> bool {
    !content(object).eq(content(old))
}

/// What a kind says beyond metadata and status.
fn content(tree: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let aside = ["metadata", "status", "apiVersion", "kind"];
    let fields = tree.as_object().into_iter().flatten();
    fields.filter(move |(field, _)| !aside.contains(&field.as_str()))
}

/// The behaviour of one kind on trees that already have the schema's shape
/// (unknown fields gone, types right). Every method has a default, so that a
/// plain kind overrides little. None may panic on any tree of that shape.
pub trait Strategy: Send + Sync + 'static {
    /// Fills what the user left out, as upstream's defaulting does. Idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Clears and sets what a creator may not choose. `status` is already cleared when the kind
    /// has a status subresource.
    fn prepare_create(&self, _object: &mut Value) {}

    /// The same for an update; `status` is already taken from `old`.
    fn prepare_update(&self, _object: &mut Value, _old: &Value) {}

    /// Faults of a new object, beyond those of `metadata`, which the generic path finds.
    fn validate_create(&self, _object: &Value, _faults: &mut Faults) {}

    /// Faults of a changed object.
    fn validate_update(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
    }

    /// What changes in an object that somebody asks to delete for the first time.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Limits a write to a subresource to what may be changed there, and fills in what the
    /// server says. For `status` all but the status comes from `old` already.
    fn prepare_subresource(&self, _subresource: &str, _object: &mut Value, _old: &Value) {}

    /// Why upstream's conversion cannot read what its decoder could.
    fn misread(&self, _object: &Value) -> Option<String> {
        None
    }

    /// Faults of a write to a subresource other than `status` and `scale`.
    fn validate_subresource(
        &self,
        _subresource: &str,
        _object: &Value,
        _old: &Value,
        _faults: &mut Faults,
    ) {
    }

    /// Faults of a changed `status`.
    fn validate_status(&self, _object: &Value, _old: &Value, _faults: &mut Faults) {}

    /// Rules broken by a name of this kind.
    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_subdomain(name)
    }

    /// Fields that selectors may name besides `metadata.name` and `metadata.namespace`.
    /// Always the same fields for a kind, whatever the object.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Names of [`Strategy::selectable_fields`].
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether stored objects are brought into today's shape before anybody sees them.
    fn reshapes(&self) -> bool {
        false
    }

    /// Brings a stored object into today's shape.
    fn reshape(&self, _object: &mut Value) {}

    /// Fields of the object that selectors may name because its users said so, by their paths;
    /// `None` for other fields.
    fn custom_field(&self, _object: &Value, _path: &str) -> Option<String> {
        None
    }

    /// Whether [`Strategy::custom_field`] knows a path.
    fn has_custom_field(&self, _path: &str) -> bool {
        false
    }

    /// Warnings for the user who wrote the object.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Warnings for the user who changed the object.
    fn warnings_update(&self, object: &Value, _old: &Value) -> Vec<String> {
        self.warnings(object)
    }

    /// Whether finalizers may have any name; those of Kubernetes' own kinds need a domain.
    fn has_free_finalizers(&self) -> bool {
        false
    }

    /// Whether the change counts in `metadata.generation`: any but of metadata and status.
    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        is_moved(object, old)
    }

    /// Whether a deletion that does not say what happens to dependents leaves them alone.
    fn orphans_dependents(&self) -> bool {
        false
    }

    /// The cells of [`Row::columns`].
    fn cells(&self, object: &Value, now: Timestamp) -> Cells;

    /// Seconds between the request to delete and the removal; `None`: removed at once.
    /// `asked` is what the request says. (Pods answer their grace period.)
    fn grace_period_seconds(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }
}
