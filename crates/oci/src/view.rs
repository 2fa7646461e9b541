//! Stacked layers, seen from outside as a container would see them, or the files of a running process. Paths are resolved inside of it, whatever links it has.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use linux::mount::{Filesystem, attribute};
use linux::root::Root;

/// What a user and a group become.
pub type Owner<'a> = &'a dyn Fn((u32, u32)) -> io::Result<(u32, u32)>;

/// Files below one root.
pub struct View {
    root: Root,
}

impl View {
    /// What a running process sees; folders that are made in it belong to `owner`.
    pub fn of_process(pid: i32, owner: Option<(u32, u32)>) -> io::Result<View> {
        let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
        Ok(View {
            root: root.owned_by(owner),
        })
    }

    /// What a container of these layers (the lowest first) and these own files would see.
    pub fn of_layers(layers: &[PathBuf], writable: Option<&Path>) -> io::Result<View> {
        View::stack(layers, writable, true)
    }

    /// As [`View::of_layers`], but what is written need not outlast a crash.
    pub fn for_a_while(layers: &[PathBuf], writable: &Path) -> io::Result<View> {
        View::stack(layers, Some(writable), false)
    }

    fn stack(layers: &[PathBuf], writable: Option<&Path>, lasting: bool) -> io::Result<View> {
        if let ([only], None) = (layers, writable) {
            return Ok(View {
                root: Root::open(only)?,
            });
        }
        // By descriptor the names are short enough for every interface.
        let open: Vec<fs::File> = layers
            .iter()
            .rev()
            .map(fs::File::open)
            .collect::<Result<_, _>>()?;
        let name = |file: &fs::File| format!("/proc/self/fd/{}", file.as_raw_fd());
        let context = Filesystem::open("overlay")?;
        let one_by_one = open
            .iter()
            .try_for_each(|file| context.set("lowerdir+", name(file).as_bytes()).map(drop));
        if one_by_one.is_err() {
            let names: Vec<String> = open.iter().map(name).collect();
            context.set("lowerdir", names.join(":").as_bytes())?;
        }
        let mut held = Vec::new();
        let mut attributes = attribute::READ_ONLY;
        if let Some(folder) = writable {
            forget_mount(folder)?;
            for (key, part) in [("upperdir", "upper"), ("workdir", "work")] {
                let file = fs::File::open(folder.join(part))?;
                context.set(key, name(&file).as_bytes())?;
                held.push(file);
            }
            if !lasting {
                context.flag("volatile")?;
            }
            attributes = 0;
        }
        let tree = context.mount(attributes)?;
        drop(held);
        Ok(View {
            root: Root::from_descriptor(tree.as_fd().try_clone_to_owned()?),
        })
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A handle of a path, and the path by which the handle can be used.
    pub fn open(&self, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
        let handle = self.root.handle(path)?;
        let name = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        Ok((handle, name))
    }

    /// Copies what is in a folder of ours to a folder outside; nothing where there is none. `owner`
    /// tells whose the copies are.
    pub fn copy_out(&self, path: &Path, target: &Path, owner: Owner<'_>) -> io::Result<()> {
        let (_handle, source) = match self.open(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let metadata = fs::metadata(&source)?;
        if !metadata.is_dir() {
            return Ok(());
        }
        copy_folder(&source, target, owner)?;
        take_owner(target, &metadata, owner)
    }
}

/// An overlay that was mounted without flushing refuses to be mounted again; what it wrote is
/// whole as long as the machine has not crashed, and then there is nothing better to have.
pub fn forget_mount(writable: &Path) -> io::Result<()> {
    match fs::remove_dir_all(writable.join("work/work/incompat")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::remove_dir_all(writable.join("work/incompat")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_folder(source: &Path, target: &Path, owner: Owner<'_>) -> io::Result<()> {
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&from)?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
            let (uid, gid) = owner((metadata.uid(), metadata.gid()))?;
            std::os::unix::fs::lchown(&to, Some(uid), Some(gid))?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&from, &to, owner)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        } else {
            // Devices, pipes and sockets are no contents.
            continue;
        }
        take_owner(&to, &metadata, owner)?;
    }
    Ok(())
}

fn take_owner(path: &Path, metadata: &fs::Metadata, owner: Owner<'_>) -> io::Result<()> {
    let (uid, gid) = owner((metadata.uid(), metadata.gid()))?;
    std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}
