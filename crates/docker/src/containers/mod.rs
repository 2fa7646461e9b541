//! Containers: one file per thing that can be done with them.

mod archive;
mod attach;
mod commit;
mod create;
mod discarded;
mod end;
mod inspect;
mod list;
mod logs;
mod mounts;
mod remove;
mod share;
mod start;
mod stats;
mod top;
mod update;

use node_api::TerminalSize;

use crate::answer::Fault;
use crate::call::Call;

pub(crate) use archive::{
    changes, export, get as get_archive, head as head_archive, our_places, put as put_archive,
};
pub(crate) use attach::{attach, resize};
pub(crate) use commit::commit;
pub(crate) use create::{create, rename};
pub(crate) use discarded::rare as rare_limits;
pub(crate) use end::{kill, pause, stop, unpause, wait};
pub(crate) use inspect::inspect;
pub(crate) use list::list;
pub(crate) use logs::{LogFiles, logs};
pub(crate) use remove::{prune, remove, until_moment};
pub(crate) use share::other as other_container;
pub(crate) use start::{restart, start, start_code};
pub(crate) use stats::{machine_memory, stats};
pub(crate) use top::top;
pub(crate) use update::update;

/// `h` and `w` of a resize.
pub(crate) fn terminal_size(call: &Call) -> Result<TerminalSize, Fault> {
    let side = |name: &str| {
        let missing = || Fault::bad(format!("invalid resize {name}: value is required"));
        call.query.number::<u16>(name)?.ok_or_else(missing)
    };
    Ok(TerminalSize {
        width: side("w")?,
        height: side("h")?,
    })
}
