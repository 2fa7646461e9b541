//! The engine as the kubelet sees it, with real containers. Needs root.

mod basics;
mod comeback;
mod host;
mod limits;
mod speed;
mod streams;
