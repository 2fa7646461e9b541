//! The API server over the real store, called in process and by kubectl.

mod admission;
mod cluster;
mod custom;
mod kubectl;
mod lists;
mod streams;
mod watches;
mod writes;
