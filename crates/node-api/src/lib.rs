//! The traits a kubelet stands on: a container runtime and image service
//! shaped as CRI v1, a pod network shaped as CNI. Anything that speaks those
//! protocols can stand behind them; the engine implements them in process.

mod events;
pub mod network;
pub mod runtime;

pub use events::Listeners;
pub use network::{PodNetwork, PodNetworkConfig, PodNetworkResult};
pub use runtime::*;
