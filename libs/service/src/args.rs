use std::path::PathBuf;

/// Flags that every process on the bus takes.
#[derive(Clone, Debug, clap::Args)]
pub struct BusArgs {
    /// Address of the NATS server, `nats://host:port`, or `tls://host:port` between machines.
    #[arg(long, env = "BOXYARD_NATS_URL")]
    pub nats_url: String,
    /// User of this process on the NATS server.
    #[arg(long, env = "BOXYARD_NATS_USER")]
    pub nats_user: String,
    /// File that holds the user's password.
    #[arg(long, env = "BOXYARD_NATS_PASSWORD_FILE")]
    pub nats_password_file: Option<PathBuf>,
    /// The authority (PEM) that NATS, the layer store and byte streams are verified with, where they speak TLS.
    #[arg(long, env = "BOXYARD_CA")]
    pub ca: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace, or tracing's directives.
    #[arg(long, env = "BOXYARD_LOG", default_value = "info")]
    pub log: String,
}

impl BusArgs {
    /// Makes `--ca` what this process trusts; to be called before anything is dialled.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn trust(&self) -> Result<(), trust::Error> {
        self.ca.as_deref().map_or(Ok(()), trust::install)
    }
}

/// Flags of every client of the layer store.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// Address of the layer store, `http://host:port`, or https between machines.
    #[arg(long, env = "BOXYARD_STORE_URL")]
    pub store_url: String,
    /// File that holds the layer store's token.
    #[arg(long, env = "BOXYARD_TOKEN_FILE")]
    pub token_file: PathBuf,
}

/// Flags of every process that knows how registries are reached. The rules are dockerd's.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RegistryArgs {
    /// Registry that is asked first for what docker.io has, `http(s)://host[:port]`; repeated, in order.
    #[arg(long = "registry-mirror", env = "BOXYARD_REGISTRY_MIRROR", value_delimiter = ',')]
    pub mirrors: Vec<String>,
    /// Registry that may be spoken to without TLS, or with a certificate of nobody's: `host[:port]` or a network such
    /// as `10.0.0.0/8`; repeated. Loopback (127.0.0.0/8) always may.
    #[arg(long = "insecure-registry", env = "BOXYARD_INSECURE_REGISTRY", value_delimiter = ',')]
    pub insecure: Vec<String>,
}

/// Flags of every process that runs containers on a machine.
#[derive(Clone, Debug, clap::Args)]
pub struct MachineArgs {
    /// Folder that all processes of this machine share: containers, unpacked layers, networks.
    #[arg(long, env = "BOXYARD_MACHINE_DIR")]
    pub machine_dir: PathBuf,
    /// Name of this Boxyard in what is global on a machine (control groups, interfaces): six hex digits.
    #[arg(long, env = "BOXYARD_INSTANCE")]
    pub instance: String,
    /// The OCI runtime; by default crun, else runc, from PATH.
    #[arg(long, env = "BOXYARD_RUNTIME")]
    pub runtime: Option<PathBuf>,
    /// The shim; by default the one beside this program.
    #[arg(long, env = "BOXYARD_SHIM")]
    pub shim: Option<PathBuf>,
}

impl StoreArgs {
    /// The token, without the line's end.
    ///
    /// # Errors
    /// What the operating system says of the file, with its name.
    pub fn token(&self) -> std::io::Result<String> {
        read_token(&self.token_file)
    }
}

/// A secret in a file, without the line's end.
///
/// # Errors
/// What the operating system says of the file, with its name.
pub fn read_token(file: &std::path::Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(file);
    let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("reading {}: {e}", file.display()));
    Ok(text.map_err(named)?.trim().to_owned())
}

impl MachineArgs {
    /// The OCI runtime to use, if there is one.
    pub fn runtime_binary(&self) -> Option<PathBuf> {
        self.runtime.clone().or_else(|| ["crun", "runc"].iter().find_map(|name| on_path(name)))
    }

    /// Whether the processes of this machine are told to end for good, so that containers end with them: a file says so,
    /// which the supervisor makes.
    pub fn stops_for_good(&self) -> bool {
        self.machine_dir.join("stop-containers").exists()
    }

    pub fn shim_binary(&self) -> PathBuf {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("boxyard-shim"));
        self.shim.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("boxyard-shim"))
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
