//! Messages of containerd's content API (`containerd.services.content.v1.Content`), as far as sessions use it: BuildKit's
//! clients serve the blobs of their OCI layouts by it, and take blobs for them. Fields that nobody here reads are left
//! out; their numbers are containerd's.

use prost::Message;

/// Which of a client's stores a call is about: metadata of the call.
pub const STORE_ID: &str = "buildkit-attachable-store-id";

pub const INFO: &str = "/containerd.services.content.v1.Content/Info";
pub const READ: &str = "/containerd.services.content.v1.Content/Read";
pub const WRITE: &str = "/containerd.services.content.v1.Content/Write";

#[derive(Clone, PartialEq, Eq, Message)]
pub struct InfoRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

/// A blob that is there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Info {
    #[prost(string, tag = "1")]
    pub digest: String,
    /// In bytes.
    #[prost(int64, tag = "2")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// In bytes; 0: to the end.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReadResponse {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// How far the write is.
    Stat = 0,
    Write = 1,
    /// All is there: the blob is checked and kept.
    Commit = 2,
}

/// Each is answered with a [`WriteResponse`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WriteRequest {
    #[prost(enumeration = "Action", tag = "1")]
    pub action: i32,
    /// Names the write until it is committed.
    #[prost(string, tag = "2")]
    pub reference: String,
    /// Of the whole blob, in bytes.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// The digest that the whole blob must have.
    #[prost(string, tag = "4")]
    pub expected: String,
    #[prost(int64, tag = "5")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct WriteResponse {
    #[prost(enumeration = "Action", tag = "1")]
    pub action: i32,
    /// So many bytes are there.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    #[prost(int64, tag = "5")]
    pub total: i64,
    #[prost(string, tag = "6")]
    pub digest: String,
}
