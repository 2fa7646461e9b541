//! Layers of images as file systems: a container's root, and images as volumes. With a user
//! namespace each layer is first mounted with the ids it has there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::mount::{Detached, Filesystem, attribute};
use linux::root::Root;
use nix::fcntl::AT_FDCWD;

use crate::spec::{ContainerSpec, ImageVolume};
use crate::supervisor::Step;
use crate::supervisor::rootfs::{Mapped, Outside, Source};

/// Folders in a container's own, as mount points that only its mount namespace sees filled.
const MAPPED: &str = "mapped";
const OWN: &str = "own";
const IMAGES: &str = "images";

/// Layers by names relative to the working directory, topmost first.
struct Stack<'a> {
    names: &'a [String],
    /// The folder with `upper` and `work`; without it nothing can be written.
    writable: Option<&'a Path>,
}

/// Mounts the root file system; returns a handle of it. The current directory is used for a while:
/// layer names relative to it are short enough for every interface.
pub(super) fn overlay(
    spec: &ContainerSpec,
    outside: &Outside,
    warn: &dyn Fn(&str),
) -> io::Result<OwnedFd> {
    // Hides what it is made of, in our mount namespace only: nobody goes there by path any more.
    let target = &spec.writable;
    let skeleton = spec.skeleton.iter();
    let layers: Vec<String> = spec.layers.iter().chain(skeleton).cloned().collect();
    let names = enter_layers(spec, &layers, "root", outside)?;
    let own = match &outside.user {
        // What is written is stored with the ids it has inside.
        Some(user) => {
            let place = spec.writable.join(MAPPED).join(OWN);
            std::fs::create_dir_all(&place)?;
            mount_mapped(&spec.writable, user, &place)?;
            place
        }
        None => spec.writable.clone(),
    };
    let stack = Stack {
        names: &names,
        writable: Some(&own),
    };
    if let Err(error) = stack.mount(target) {
        // Some file systems, another overlay among them, cannot hold the upper part.
        if error.kind() != io::ErrorKind::InvalidInput || outside.user.is_some() {
            return Err(error);
        }
        warn(&format!(
            "{} cannot hold an overlay, writes stay in memory: {error}",
            spec.writable.display()
        ));
        let memory = Filesystem::open("tmpfs")?.set("mode", b"700")?.mount(0)?;
        memory.attach(Root::open(&spec.writable)?.as_fd())?;
        for name in ["upper", "work"] {
            Root::open(&spec.writable)?.make_folders(Path::new(name), 0o755)?;
        }
        stack.mount(target)?;
    }
    let root = Root::open(target)?;
    nix::unistd::chdir("/")?;
    root.as_fd().try_clone_to_owned()
}

/// Images that are volumes, ready to be mounted.
pub(super) fn volumes<'a>(
    spec: &'a ContainerSpec,
    outside: &Outside,
) -> Result<Vec<Source<'a>>, String> {
    let mut sources = Vec::new();
    for (index, volume) in spec.images.iter().enumerate() {
        let name = format!("image volume {}", volume.container_path.display());
        sources.push(image(spec, volume, index, outside).step(&name)?);
    }
    Ok(sources)
}

fn image<'a>(
    spec: &ContainerSpec,
    volume: &'a ImageVolume,
    index: usize,
    outside: &Outside,
) -> io::Result<Source<'a>> {
    let place = spec.writable.join(IMAGES).join(index.to_string());
    std::fs::create_dir_all(&place)?;
    let names = enter_layers(spec, &volume.layers, &format!("image{index}"), outside)?;
    match names.as_slice() {
        // One layer makes no overlay.
        [only] => Detached::copy(AT_FDCWD.as_fd(), Path::new(only), true)?
            .attach(Root::open(&place)?.as_fd())?,
        names => Stack {
            names,
            writable: None,
        }
        .mount(&place)?,
    }
    nix::unistd::chdir("/")?;
    let handle = Root::open(&place)?.handle(&volume.sub_path)?;
    let kind = nix::sys::stat::fstat(&handle)?.st_mode & nix::sys::stat::SFlag::S_IFMT.bits();
    Ok(Source {
        path: &volume.container_path,
        tree: Detached::copy(handle.as_fd(), Path::new(""), true)?,
        is_file: kind != nix::sys::stat::SFlag::S_IFDIR.bits(),
        propagation: volume.propagation,
        readonly: true,
        recursive_read_only: true,
    })
}

/// Goes where the layers are, by names or whole paths, and tells their names there.
fn enter_layers(
    spec: &ContainerSpec,
    layers: &[String],
    purpose: &str,
    outside: &Outside,
) -> io::Result<Vec<String>> {
    let Some(user) = &outside.user else {
        nix::unistd::chdir(&spec.layers_folder)?;
        return Ok(layers.to_vec());
    };
    let folder = spec.writable.join(MAPPED).join(purpose);
    let names: Vec<String> = (0..layers.len()).map(|index| index.to_string()).collect();
    for (layer, name) in layers.iter().zip(&names) {
        let place = folder.join(name);
        std::fs::create_dir_all(&place)?;
        mount_mapped(&spec.layers_folder.join(layer), user, &place)?;
    }
    nix::unistd::chdir(&folder)?;
    Ok(names)
}

fn mount_mapped(layer: &Path, user: &Mapped, place: &Path) -> io::Result<()> {
    let tree = Detached::copy(AT_FDCWD.as_fd(), layer, false)?;
    tree.map_ids(user.storage.as_fd()).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("mapping ids of {}: {error}", layer.display()),
        )
    })?;
    tree.attach(Root::open(place)?.as_fd())
}

impl Stack<'_> {
    fn mount(&self, target: &Path) -> io::Result<()> {
        match self.by_descriptor() {
            Ok(tree) => tree.attach(Root::open(target)?.as_fd()),
            // Kernels before 6.5 take layers in one option text only.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.by_text(target),
            Err(error) => Err(error),
        }
    }

    fn by_descriptor(&self) -> io::Result<Detached> {
        let context = Filesystem::open("overlay")?;
        for name in self.names {
            context.set("lowerdir+", name.as_bytes())?;
        }
        let Some(writable) = self.writable else {
            return context.mount(attribute::READ_ONLY);
        };
        let folder = |name: &str| writable.join(name).into_os_string().into_encoded_bytes();
        context.set("upperdir", &folder("upper"))?;
        context.set("workdir", &folder("work"))?;
        // A container's own writes need not survive the machine, so nothing waits for the disk.
        context.flag("volatile")?;
        context.mount(0)
    }

    fn by_text(&self, target: &Path) -> io::Result<()> {
        let lower = self.names.join(":");
        let mut options = format!("lowerdir={lower}");
        if let Some(writable) = self.writable.map(Path::display) {
            options += &format!(",upperdir={writable}/upper,workdir={writable}/work");
        }
        nix::mount::mount(
            Some("overlay"),
            target,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )?;
        Ok(())
    }
}
