//! Volumes: `volumes/<name>/_data`, and beside it what is known about it.

use std::path::{Path, PathBuf};

use bus::Error;
use prost::Message as _;
use proto::mount::Type;
use proto::{ContainerSpec, Empty, MountPoint, VolumeInfo, VolumeList, VolumeRef, VolumeSpec};

use crate::commit::{blocking, io};
use crate::containers::write;
use crate::node::{Node, lock};
use crate::start::snapshot;

const RECORD: &str = "volume.pb";

impl Node {
    fn volume_folder(&self, name: &str) -> Result<PathBuf, Error> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !first || !rest || name.len() > 255 {
            return Err(Error::invalid(format!(
                "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
            )));
        }
        Ok(self.machine_dir.join("volumes").join(name))
    }

    /// May be repeated: the volume that is there is answered.
    pub fn volume_create(&self, spec: VolumeSpec) -> Result<VolumeInfo, Error> {
        let anonymous = spec.name.is_empty();
        let name = if anonymous { hex::encode(rand::random::<[u8; 32]>()) } else { spec.name };
        let folder = self.volume_folder(&name)?;
        if let Some(known) = read(&folder) {
            return Ok(known);
        }
        let data = folder.join("_data");
        std::fs::create_dir_all(&data).map_err(io)?;
        let info = VolumeInfo {
            name,
            mountpoint: data.display().to_string(),
            created_at_ns: runtime::wire::now_ns(),
            labels: spec.labels,
            options: spec.options,
            bytes: 0,
            anonymous,
        };
        write(&folder.join(RECORD), &info.encode_to_vec())?;
        Ok(info)
    }

    /// With their sizes.
    pub async fn volume_list(&self) -> Result<VolumeList, Error> {
        let all = self.machine_dir.join("volumes");
        blocking(move || {
            let folders = std::fs::read_dir(all).into_iter().flatten().flatten();
            let mut volumes: Vec<VolumeInfo> = folders
                .filter_map(|folder| {
                    let info = read(&folder.path())?;
                    let bytes = snapshots::upper_size(&folder.path().join("_data")).unwrap_or(0);
                    Some(VolumeInfo { bytes: i64::try_from(bytes).unwrap_or(i64::MAX), ..info })
                })
                .collect();
            volumes.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(VolumeList { volumes })
        })
        .await
    }

    pub fn volume_remove(&self, request: &VolumeRef) -> Result<Empty, Error> {
        let name = &request.name;
        let folder = self.volume_folder(name)?;
        if !folder.exists() {
            return match request.force {
                true => Ok(Empty {}),
                false => Err(Error::not_found(format!("get {name}: no such volume"))),
            };
        }
        let users: Vec<String> = lock(&self.containers)
            .values()
            .map(|container| container.spec())
            .filter(|spec| spec.mounts.iter().any(|m| m.r#type() == Type::Volume && m.source == *name))
            .map(|spec| spec.id)
            .collect();
        if !users.is_empty() {
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        std::fs::remove_dir_all(&folder).map_err(io)?;
        Ok(Empty {})
    }

    /// Makes the volumes that a container names, and names the anonymous ones.
    pub fn claim_volumes(&self, spec: &mut ContainerSpec) -> Result<Vec<MountPoint>, Error> {
        let mut points = Vec::new();
        for mount in &mut spec.mounts {
            let mut point = MountPoint {
                source: mount.source.clone(),
                target: mount.target.clone(),
                rw: !mount.read_only,
                ..MountPoint::default()
            };
            match mount.r#type() {
                Type::Bind => {
                    if !mount.create_source && !Path::new(&mount.source).exists() {
                        return Err(crate::spec::missing_source(&mount.source));
                    }
                    point.r#type = "bind".to_owned();
                    let given = mount.propagation.as_str();
                    point.propagation = if given.is_empty() { "rprivate" } else { given }.to_owned();
                }
                Type::Tmpfs => {
                    point.r#type = "tmpfs".to_owned();
                    point.source.clear();
                }
                Type::Volume => {
                    let name = std::mem::take(&mut mount.source);
                    let mode = match (name.is_empty(), mount.read_only) {
                        (true, _) => "",
                        (false, true) => "ro",
                        (false, false) => "z",
                    };
                    let info = self.volume_create(VolumeSpec { name, ..VolumeSpec::default() })?;
                    mount.source = info.name.clone();
                    (point.r#type, point.driver, point.mode) = ("volume".into(), "local".into(), mode.into());
                    (point.name, point.source) = (info.name, info.mountpoint);
                }
            }
            points.push(point);
        }
        Ok(points)
    }

    /// Where a volume's files lie: in its own folder, or where its options bind it to.
    ///
    /// # Errors
    /// `Internal` when it is bound to what is not there.
    pub fn volume_data(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.volume_folder(name)?;
        let data = folder.join("_data");
        let info = read(&folder).unwrap_or_default();
        let Some(device) = info.options.get("device") else { return Ok(data) };
        match Path::new(device).exists() {
            true => Ok(device.into()),
            false => Err(Error::internal(format!(
                "error while mounting volume '{}': failed to mount local volume: mount \
                 {device}:{}, flags: 0x1000: no such file or directory",
                data.display(),
                data.display()
            ))),
        }
    }

    /// Whether a volume's options bind it for reading only.
    fn volume_is_read_only(&self, name: &str) -> bool {
        let info = self.volume_folder(name).ok().and_then(|folder| read(&folder)).unwrap_or_default();
        info.options.get("o").is_some_and(|words| words.split(',').any(|word| word == "ro"))
    }

    /// By the container's own wish, or by the options of the volume.
    pub fn is_read_only(&self, mount: &proto::Mount) -> bool {
        mount.read_only || mount.r#type() == Type::Volume && self.volume_is_read_only(&mount.source)
    }

    /// An empty volume begins with what the image has at its place.
    pub fn fill_volumes(&self, spec: &ContainerSpec, rootfs: &Path) -> Result<(), Error> {
        for mount in spec.mounts.iter().filter(|mount| mount.r#type() == Type::Volume && !mount.no_copy) {
            if self.volume_is_read_only(&mount.source) {
                continue;
            }
            let data = self.volume_data(&mount.source)?;
            if std::fs::read_dir(&data).map_err(io)?.next().is_some() {
                continue;
            }
            let (reader, writer) = std::io::pipe().map_err(io)?;
            let (root, target) = (rootfs.to_owned(), PathBuf::from(&mount.target));
            let packing = std::thread::spawn(move || snapshots::pack(&root, &target, Path::new("."), writer));
            let unpacked = snapshots::unpack(&data, Path::new(""), reader, &snapshots::UnpackOptions::default());
            match packing.join().map_err(|_| Error::internal("packing a volume's content panicked"))? {
                // The image has nothing there.
                Err(error) if error.kind() == model::ErrorKind::NotFound => {}
                packed => {
                    unpacked.map_err(snapshot)?;
                    packed.map_err(snapshot)?;
                }
            }
        }
        Ok(())
    }

    fn anonymous_volumes(&self, spec: &ContainerSpec) -> impl Iterator<Item = String> {
        let volumes = spec.mounts.iter().filter(|mount| mount.r#type() == Type::Volume);
        volumes.filter_map(|mount| {
            let info = self.volume_folder(&mount.source).ok().and_then(|folder| read(&folder));
            info.filter(|info| info.anonymous).map(|info| info.name)
        })
    }

    pub fn has_anonymous_volumes(&self, spec: &ContainerSpec) -> bool {
        self.anonymous_volumes(spec).next().is_some()
    }

    /// The anonymous volumes of a container that is gone.
    pub fn drop_volumes(&self, spec: &ContainerSpec) {
        for name in self.anonymous_volumes(spec) {
            if let Err(error) = self.volume_remove(&VolumeRef { name, force: true }) {
                tracing::warn!(%error, "a volume could not be removed");
            }
        }
    }
}

fn read(folder: &Path) -> Option<VolumeInfo> {
    VolumeInfo::decode(std::fs::read(folder.join(RECORD)).ok()?.as_slice()).ok()
}
