use std::collections::{HashMap, VecDeque};

use bollard_buildkit_proto::fsutil::types::Stat;
use model::Digest;
use sha2::{Digest as _, Sha256};

use crate::path::Sequence;
use crate::stat::{self, FileStat, Read};
use crate::{Content, Entry, Error, Kind, Known, Pack, Sha256Digest, Tree, by_components};

/// What a client may send, and how much of it is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub entries: usize,
    /// Of all paths, link targets and attributes, in bytes.
    pub names_bytes: usize,
    /// A file of more is a pack of its own and goes through as it comes.
    pub large_bytes: u64,
    /// Of a pack of many files.
    pub pack_bytes: usize,
    /// Small files that were asked for and have not come, in number and in bytes.
    pub open_files: usize,
    pub open_bytes: u64,
    /// Large files at once: each is an upload of its own.
    pub open_large: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            names_bytes: 256 << 20,
            large_bytes: 4 << 20,
            pack_bytes: 8 << 20,
            open_files: 128,
            open_bytes: 32 << 20,
            open_large: 4,
        }
    }
}

/// What goes into the layer store.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// A whole blob.
    Pack { digest: Digest, bytes: Vec<u8> },
    /// The next bytes of the large file `id`; the last ones say what the whole blob is.
    Part { id: u32, bytes: Vec<u8>, whole: Option<Pack> },
}

/// Makes a tree of what a client sends. Give it each packet, send what [`Self::next_request`] asks for, and store each
/// [`Output`]; when it [`Self::is_complete`], [`Self::flush`] and [`Self::finish`].
#[derive(Debug)]
pub struct Receiver {
    known: Known,
    limits: Limits,
    sequence: Sequence,
    next_id: u32,
    names_bytes: usize,
    is_listed: bool,
    /// In order of their paths.
    entries: Vec<Draft>,
    wanted: VecDeque<Wanted>,
    open: HashMap<u32, Open>,
    open_bytes: u64,
    open_large: usize,
    /// Contents of the pack that is filled.
    filling: Vec<u8>,
    /// Its position.
    filling_at: Option<usize>,
    packs: Vec<Option<Pack>>,
    places: HashMap<Digest, usize>,
    transferred_bytes: u64,
}

/// An entry whose content may be on its way.
#[derive(Debug)]
struct Draft {
    entry: Entry,
    hard_link: Option<usize>,
}

#[derive(Debug)]
struct Wanted {
    id: u32,
    entry: usize,
    size: u64,
}

#[derive(Debug)]
struct Open {
    entry: usize,
    /// What was counted for it.
    counted: u64,
    hash: Sha256,
    size: u64,
    buffer: Vec<u8>,
    /// Of a large file: the position of its pack.
    pack: Option<usize>,
}

impl Receiver {
    pub fn new(known: Known, limits: Limits) -> Self {
        Self {
            known,
            limits,
            sequence: Sequence::default(),
            next_id: 0,
            names_bytes: 0,
            is_listed: false,
            entries: Vec::new(),
            wanted: VecDeque::new(),
            open: HashMap::new(),
            open_bytes: 0,
            open_large: 0,
            filling: Vec::new(),
            filling_at: None,
            packs: Vec::new(),
            places: HashMap::new(),
            transferred_bytes: 0,
        }
    }

    /// The next file's Stat, in fsutil's order; none ends the list.
    ///
    /// # Errors
    /// `InvalidArgument` for what must not be in a tree, `Exhausted` past the limits.
    pub fn stat(&mut self, stat: Option<Stat>) -> Result<(), Error> {
        let Some(stat) = stat else {
            self.is_listed = true;
            return Ok(());
        };
        if self.is_listed {
            return Err(Error::Order { path: stat.path, before: "the end of the list".to_owned() });
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(Error::TooLarge("files"))?;
        self.count(&stat)?;
        match stat::read(stat)? {
            Read::Left => {}
            Read::Entry(entry) => {
                self.sequence.next(&entry.path, entry.kind == Kind::Folder)?;
                self.entries.push(Draft { entry, hard_link: None });
            }
            Read::File(entry, of_file) => {
                self.sequence.next(&entry.path, false)?;
                self.file(id, entry, &of_file);
            }
        }
        Ok(())
    }

    fn count(&mut self, stat: &Stat) -> Result<(), Error> {
        let of_xattrs = stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.names_bytes += stat.path.len() + stat.linkname.len() + of_xattrs;
        if self.entries.len() >= self.limits.entries {
            return Err(Error::TooLarge("files"));
        }
        if self.names_bytes > self.limits.names_bytes {
            return Err(Error::TooLarge("bytes of names"));
        }
        Ok(())
    }

    /// Takes a file as a hard link, with content that is known, or as one to ask for.
    fn file(&mut self, id: u32, mut entry: Entry, of_file: &FileStat) {
        let at = self.entries.len();
        // What it is linked to may have been left out: then it is a file of its own.
        let first = of_file.first.as_ref().and_then(|first| self.position(first));
        if let Some(first) = first.filter(|first| matches!(self.entries[*first].entry.kind, Kind::File { .. })) {
            let first = self.entries[first].hard_link.unwrap_or(first);
            entry.kind = Kind::File { content: empty(), hard_link: Some(self.entries[first].entry.path.clone()) };
            self.entries.push(Draft { entry, hard_link: Some(first) });
            return;
        }
        let found = self.known.find(&entry, of_file).map(|(content, pack)| (content.clone(), pack.clone()));
        let content = match found {
            Some((content, pack)) => Content { pack: Some(self.place(pack)), ..content },
            None => {
                if of_file.size > 0 {
                    self.wanted.push_back(Wanted { id, entry: at, size: of_file.size });
                }
                empty()
            }
        };
        entry.kind = Kind::File { content, hard_link: None };
        self.entries.push(Draft { entry, hard_link: None });
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|draft| by_components(&draft.entry.path, path)).ok()
    }

    /// The position of a pack that is known.
    fn place(&mut self, pack: Pack) -> usize {
        let next = self.packs.len();
        let at = *self.places.entry(pack.digest.clone()).or_insert(next);
        if at == next {
            self.packs.push(Some(pack));
        }
        at
    }

    /// The id of a file to ask the client for, as far as there is room for it.
    pub fn next_request(&mut self) -> Option<u32> {
        let next = self.wanted.front()?;
        let large = next.size > self.limits.large_bytes;
        let has_room = match large {
            true => self.open_large < self.limits.open_large,
            false => self.open.len() < self.limits.open_files && self.open_bytes + next.size <= self.limits.open_bytes,
        };
        if !has_room {
            return None;
        }
        let Wanted { id, entry, size } = self.wanted.pop_front()?;
        let counted = if large { 0 } else { size };
        self.open_bytes += counted;
        let pack = large.then(|| self.begin_large());
        self.open.insert(id, Open { entry, counted, hash: Sha256::new(), size: 0, buffer: Vec::new(), pack });
        Some(id)
    }

    fn begin_large(&mut self) -> usize {
        self.open_large += 1;
        self.packs.push(None);
        self.packs.len() - 1
    }

    /// Content of a file that was asked for; none at its end.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that was not asked for.
    pub fn data(&mut self, id: u32, bytes: Vec<u8>) -> Result<Option<Output>, Error> {
        let open = self.open.get_mut(&id).ok_or(Error::NotRequested(id))?;
        if bytes.is_empty() {
            return Ok(self.end(id));
        }
        open.hash.update(&bytes);
        open.size += bytes.len() as u64;
        self.transferred_bytes += bytes.len() as u64;
        if open.pack.is_some() {
            return Ok(Some(Output::Part { id, bytes, whole: None }));
        }
        open.buffer.extend_from_slice(&bytes);
        // What is held counts, also of a file that has grown since it was listed.
        self.open_bytes += open.size.saturating_sub(open.counted);
        open.counted = open.counted.max(open.size);
        if open.size <= self.limits.large_bytes && self.open_bytes <= self.limits.open_bytes {
            return Ok(None);
        }
        self.open_bytes -= open.counted;
        open.counted = 0;
        let bytes = std::mem::take(&mut open.buffer);
        let pack = self.begin_large();
        if let Some(open) = self.open.get_mut(&id) {
            open.pack = Some(pack);
        }
        Ok(Some(Output::Part { id, bytes, whole: None }))
    }

    fn end(&mut self, id: u32) -> Option<Output> {
        let Open { entry, counted, hash, size, buffer, pack } = self.open.remove(&id)?;
        self.open_bytes -= counted;
        let sha256: Sha256Digest = hash.finalize().into();
        if let Some(at) = pack {
            self.open_large -= 1;
            let whole = Pack { digest: Digest::from_sha256(&sha256), size };
            self.packs[at] = Some(whole.clone());
            self.set(entry, Content { sha256, size, pack: (size > 0).then_some(at), offset: 0 });
            return Some(Output::Part { id, bytes: Vec::new(), whole: Some(whole) });
        }
        if buffer.is_empty() {
            return None;
        }
        let full = self.filling.len() + buffer.len() > self.limits.pack_bytes;
        let output = if full { self.flush() } else { None };
        let at = match self.filling_at {
            Some(at) => at,
            None => {
                self.packs.push(None);
                *self.filling_at.insert(self.packs.len() - 1)
            }
        };
        self.set(entry, Content { sha256, size, pack: Some(at), offset: self.filling.len() as u64 });
        self.filling.extend_from_slice(&buffer);
        output
    }

    fn set(&mut self, entry: usize, new: Content) {
        if let Kind::File { content, .. } = &mut self.entries[entry].entry.kind {
            *content = new;
        }
    }

    /// The list has ended and every content that was asked for has come.
    pub fn is_complete(&self) -> bool {
        self.is_listed && self.wanted.is_empty() && self.open.is_empty()
    }

    /// The pack that is not full yet.
    pub fn flush(&mut self) -> Option<Output> {
        let at = self.filling_at.take()?;
        let bytes = std::mem::take(&mut self.filling);
        let digest = Digest::of(&bytes);
        self.packs[at] = Some(Pack { digest: digest.clone(), size: bytes.len() as u64 });
        Some(Output::Pack { digest, bytes })
    }

    /// Bytes of content that the client has sent.
    pub fn transferred_bytes(&self) -> u64 {
        self.transferred_bytes
    }

    /// The tree, whose packs are in the order of their first use: the same files give the same tree.
    ///
    /// # Errors
    /// `Malformed` before it is complete and flushed.
    pub fn finish(mut self) -> Result<Tree, Error> {
        if !self.is_complete() || self.filling_at.is_some() {
            return Err(Error::Malformed("it broke off".to_owned()));
        }
        let mut tree = Tree::default();
        let mut places = HashMap::<Digest, usize>::new();
        for at in 0..self.entries.len() {
            if let Some(first) = self.entries[at].hard_link {
                let Kind::File { content, .. } = self.entries[first].entry.kind.clone() else { continue };
                self.set(at, content);
                continue;
            }
            let Kind::File { content: Content { pack: Some(pack), .. }, .. } = &mut self.entries[at].entry.kind else {
                continue;
            };
            let blob = self.packs[*pack].as_ref().ok_or_else(|| Error::Malformed("a pack is missing".to_owned()))?;
            *pack = *places.entry(blob.digest.clone()).or_insert_with(|| {
                tree.packs.push(blob.clone());
                tree.packs.len() - 1
            });
        }
        tree.entries = self.entries.into_iter().map(|draft| draft.entry).collect();
        Ok(tree)
    }
}

fn empty() -> Content {
    Content { sha256: Sha256::digest(b"").into(), size: 0, pack: None, offset: 0 }
}
