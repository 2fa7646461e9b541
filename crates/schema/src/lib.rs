//! The schema table: per kind and field its JSON name, protobuf tag, type,
//! list and map semantics, patch strategy and documentation; and all that is
//! driven by it: shape checks, patches, server-side apply, OpenAPI.
