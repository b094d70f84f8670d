//! Netlink: the bridge, and the pair of interfaces of one container.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::Error;

/// The container's end, as every container sees it.
const INSIDE: &str = "eth0";

pub struct Plan {
    /// The host's end of the pair.
    pub host: String,
    pub bridge: String,
    pub netns: PathBuf,
    pub ip: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub mac: [u8; 6],
}

impl Plan {
    pub fn wire(&self) -> Result<(), Error> {
        self.new_namespace()?;
        run(async |net| {
            let bridge = index(&net, &self.bridge).await?.ok_or_else(|| Error::net("the bridge is gone"))?;
            if let Some(stale) = index(&net, &self.host).await? {
                remove_link(&net, stale).await?;
            }
            let netns = File::open(&self.netns).map_err(Error::io("opening", &self.netns))?;
            // The peer is made where it belongs: moving it there would cost the kernel a wait.
            let peer = LinkUnspec::new_with_name(INSIDE).address(self.mac.to_vec()).setns_by_fd(netns.as_raw_fd());
            let pair = LinkVeth::new(&self.host, INSIDE)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())))
                .controller(bridge)
                .up();
            net.link().add(pair.build()).execute().await.map_err(Error::net)
        })?;
        self.inside(async |net| {
            let lo = LinkUnspec::new_with_name("lo").up().build();
            net.link().change(lo).execute().await.map_err(Error::net)?;
            let eth = index(&net, INSIDE).await?.ok_or_else(|| Error::net("the pair is gone"))?;
            net.address().add(eth, IpAddr::V4(self.ip), self.prefix).execute().await.map_err(Error::net)?;
            net.link().change(LinkUnspec::new_with_index(eth).up().build()).execute().await.map_err(Error::net)?;
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(self.gateway).build();
            net.route().add(route).execute().await.map_err(Error::net)
        })
    }

    /// A thread's new namespace outlives it by a bind mount.
    fn new_namespace(&self) -> Result<(), Error> {
        File::create(&self.netns).map_err(Error::io("making", &self.netns))?;
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Error::net)?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(Some(own), &self.netns, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(Error::net)
        })
    }

    fn inside(&self, work: impl AsyncFnOnce(Handle) -> Result<(), Error> + Send) -> Result<(), Error> {
        in_thread(|| {
            let netns = File::open(&self.netns).map_err(Error::io("opening", &self.netns))?;
            nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).map_err(Error::net)?;
            run(work)
        })
    }
}

/// Gives the container's end of a namespace this address.
pub fn set_mac(netns: &Path, mac: [u8; 6]) -> Result<(), Error> {
    in_thread(|| {
        let netns = File::open(netns).map_err(Error::io("opening", netns))?;
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).map_err(Error::net)?;
        run(async |net| {
            let eth = index(&net, INSIDE).await?.ok_or_else(|| Error::net("the pair is gone"))?;
            let named = LinkUnspec::new_with_index(eth).address(mac.to_vec()).build();
            net.link().change(named).execute().await.map_err(Error::net)
        })
    })
}

pub fn ensure_bridge(name: &str, gateway: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    run(async |net| {
        if index(&net, name).await?.is_none() {
            net.link().add(LinkBridge::new(name).build()).execute().await.map_err(Error::net)?;
        }
        let bridge = index(&net, name).await?.ok_or_else(|| Error::net("the bridge is gone"))?;
        net.address().add(bridge, IpAddr::V4(gateway), prefix).replace().execute().await.map_err(Error::net)?;
        net.link().change(LinkUnspec::new_with_index(bridge).up().build()).execute().await.map_err(Error::net)
    })
}

/// Removes the link `name` and every one whose name begins with `prefix`. The kernel takes a namespace that nobody
/// refers to any more down some time later, and its pairs with it: after this they are gone.
pub fn remove(name: &str, prefix: &str) -> Result<(), Error> {
    let ours =
        |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(n) if n == name || n.starts_with(prefix));
    run(async |net| {
        // A list that is read while others change theirs may lack some, hence until one is empty.
        loop {
            let links: Vec<_> = net.link().get().execute().try_collect().await.map_err(Error::net)?;
            let mut found = links.into_iter().filter(|link| link.attributes.iter().any(ours)).peekable();
            if found.peek().is_none() {
                return Ok(());
            }
            for link in found {
                remove_link(&net, link.header.index).await?;
            }
        }
    })
}

/// One that the kernel takes away meanwhile, with its namespace, is gone as well.
async fn remove_link(net: &Handle, index: u32) -> Result<(), Error> {
    match net.link().del(index).execute().await {
        Err(error) if !is_gone(&error) => Err(Error::net(error)),
        _ => Ok(()),
    }
}

async fn index(net: &Handle, name: &str) -> Result<Option<u32>, Error> {
    match net.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::net(error)),
    }
}

fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(e) if e.raw_code() == -(nix::errno::Errno::ENODEV as i32))
}

/// Runs on a small runtime of this thread: the socket belongs to the thread's network namespace.
fn run(work: impl AsyncFnOnce(Handle) -> Result<(), Error>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::net)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::net)?;
        tokio::spawn(connection);
        work(handle).await
    })
}

/// A thread of its own, since it changes its namespace.
fn in_thread(work: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err(Error::net("a thread panicked")))
}
