//! The table of calls: one row ties name, request, reply and owner. Subjects are built here and nowhere else.

use prost::Message;

/// One call: its name on the subject and its two messages.
pub trait Call: Send + Sync + 'static {
    type Request: Message + Default + Send + 'static;
    type Reply: Message + Default + Send + 'static;
    /// Last part of the subject.
    const NAME: &'static str;
    /// Who answers.
    const OWNER: Owner;
}

/// The services that answer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Gateway,
    Store,
    Sync,
    Node,
    Worker,
}

/// Who a call goes to, or who serves: a queue group of equals, or one process by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Gateway,
    /// The one gateway with this session.
    GatewayAt(String),
    Store,
    Sync,
    Node(String),
    Worker(String),
}

impl Target {
    pub fn owner(&self) -> Owner {
        match self {
            Self::Gateway | Self::GatewayAt(_) => Owner::Gateway,
            Self::Store => Owner::Store,
            Self::Sync => Owner::Sync,
            Self::Node(_) => Owner::Node,
            Self::Worker(_) => Owner::Worker,
        }
    }

    /// `rpc.gateway`, `rpc.node.<id>`.
    pub(crate) fn prefix(&self) -> String {
        match self {
            Self::Gateway => "rpc.gateway".to_owned(),
            Self::GatewayAt(session) => format!("rpc.gateway-at.{session}"),
            Self::Store => "rpc.store".to_owned(),
            Self::Sync => "rpc.sync".to_owned(),
            Self::Node(id) => format!("rpc.node.{id}"),
            Self::Worker(id) => format!("rpc.worker.{id}"),
        }
    }

    /// Where a caller that has gone is told of: `gone.sync`.
    pub(crate) fn gone(&self) -> String {
        self.prefix().replacen("rpc", "gone", 1)
    }

    /// What this target is called in an error.
    pub(crate) fn noun(&self) -> String {
        match self {
            Self::Gateway => "gateway".to_owned(),
            Self::GatewayAt(session) => format!("gateway with session {session}"),
            Self::Store => "layer store".to_owned(),
            Self::Sync => "registry-sync".to_owned(),
            Self::Node(id) => format!("node {id}"),
            Self::Worker(id) => format!("build worker {id}"),
        }
    }
}

/// Subject of a node's events.
pub(crate) fn event_subject(node_id: &str) -> String {
    format!("event.node.{node_id}")
}

/// Subject of the gateways' events.
pub(crate) const GATEWAY_EVENTS: &str = "event.gateway";

/// Subject of what a user writes into a build's log; `*` for all users.
pub(crate) fn build_log_subject(build_id: &str, user: &str) -> String {
    format!("buildlog.{build_id}.{user}")
}

macro_rules! calls {
    ($($owner:ident { $($name:ident($request:ident) -> $reply:ident;)* })*) => {
        $($(
            #[doc = concat!("`", stringify!($request), "` → `", stringify!($reply), "`")]
            pub struct $name;
            impl Call for $name {
                type Request = proto::$request;
                type Reply = proto::$reply;
                const NAME: &'static str = stringify!($name);
                const OWNER: Owner = Owner::$owner;
            }
        )*)*
    };
}

calls! {
    Gateway {
        NodeHello(NodeHello) -> NodeHelloReply;
        BlobsInUse(BlobsInUse) -> BlobsInUseReply;
        BuildNext(BuildNext) -> BuildLease;
        BuildRenew(BuildRenew) -> BuildRenewReply;
        Workers(Empty) -> WorkersReply;
        ImageResolve(ImageResolve) -> Image;
        LayoutResolve(LayoutResolve) -> Image;
        StepLookup(StepLookup) -> Image;
        StepResult(StepResult) -> Empty;
        BuildFinish(BuildFinish) -> BuildFinishReply;
        BuildExport(BuildExport) -> BuildExportReply;
        CacheImport(CacheImport) -> CacheFetchReply;
        StepContainer(StepContainer) -> Empty;
        ResultLookup(ResultLookup) -> ResultLookupReply;
        ResultPut(ResultPut) -> Empty;
        CacheMountGet(CacheMountGet) -> CacheMount;
        CacheMountPut(CacheMountPut) -> CacheMountPutReply;
        LayersLookup(LayersLookup) -> LayersLookupReply;
        BuildCredentials(BuildCredentials) -> BuildCredentialsReply;
        SessionLookup(SessionLookup) -> SessionLookupReply;
        ContextSync(ContextSync) -> ContextTree;
        SecretGet(SecretGet) -> SecretGetReply;
        SshForward(SshForward) -> SshForwardReply;
        OutputSend(OutputSend) -> Empty;
        ContentGet(ContentGet) -> Empty;
        ContentPut(ContentPut) -> Empty;
    }
    Store {
        LeaseCreate(LeaseCreate) -> Lease;
        BlobsPin(BlobsPin) -> BlobsPinReply;
        LeaseRenew(LeaseRenew) -> Empty;
        LeaseEnd(Lease) -> Empty;
        BlobsRelease(BlobsRelease) -> BlobsReleaseReply;
        Usage(Empty) -> StoreUsage;
        BlobsList(BlobsList) -> BlobsListReply;
        BlobHolders(BlobHolders) -> BlobHoldersReply;
    }
    Sync {
        SyncLoad(Load) -> LoadReply;
        SyncSave(Save) -> Empty;
        SyncImport(Import) -> ImportReply;
        SyncPull(Pull) -> PullReply;
        SyncPush(Push) -> PushReply;
        SyncArchive(Archive) -> ArchiveReply;
        SyncCache(CacheFetch) -> CacheFetchReply;
        RegistryTags(RegistryTags) -> RegistryTagsReply;
        RegistryLogin(RegistryLogin) -> RegistryLoginReply;
        RegistryInspect(RegistryInspect) -> RegistryInspectReply;
        RegistrySearch(RegistrySearch) -> RegistrySearchReply;
    }
    Node {
        ContainerCreate(ContainerSpec) -> NodeReply;
        ContainerAdopt(ContainerAdopt) -> NodeReply;
        ContainerStart(ContainerStart) -> NodeReply;
        ContainerStop(ContainerStop) -> NodeReply;
        ContainerRestart(ContainerStop) -> NodeReply;
        ContainerKill(ContainerKill) -> NodeReply;
        ContainerPause(ContainerRef) -> NodeReply;
        ContainerUnpause(ContainerRef) -> NodeReply;
        ContainerRename(ContainerRename) -> NodeReply;
        ContainerUpdate(ContainerUpdate) -> NodeReply;
        ContainerRemove(ContainerRemove) -> NodeReply;
        ContainerAttach(ContainerAttach) -> Empty;
        ContainerLogs(ContainerLogs) -> Empty;
        Resize(TerminalSize) -> Empty;
        ExecCreate(ExecSpec) -> Empty;
        ExecStart(ExecStart) -> ExecStartReply;
        ExecInspect(ExecRef) -> ExecStatus;
        ArchiveStat(ArchiveStat) -> PathStat;
        ArchiveGet(ArchiveGet) -> PathStat;
        ArchivePut(ArchivePut) -> Empty;
        ContainerExport(ContainerExport) -> Empty;
        ContainerChanges(ChangesRequest) -> ChangesReply;
        ContainerCommit(ContainerCommit) -> CommitReply;
        ContainerTop(TopRequest) -> TopReply;
        ContainerStats(StatsRequest) -> StatsReply;
        ContainerSizes(SizeRequest) -> SizeReply;
        VolumeCreate(VolumeSpec) -> VolumeInfo;
        VolumeRemove(VolumeRef) -> Empty;
        VolumeList(Empty) -> VolumeList;
        Prefetch(Prefetch) -> Empty;
        ForgetLayers(ForgetLayers) -> Empty;
        NodeStorage(StorageAsk) -> MachineStorage;
    }
    Worker {
        BuildCancel(BuildCancel) -> Empty;
        StepFollow(StepFollow) -> StepFollowReply;
        StepRun(StepRun) -> StepRunReply;
        WorkerStorage(StorageAsk) -> MachineStorage;
        CachesForget(CachesForget) -> Empty;
    }
}
