use tracing_subscriber::EnvFilter;

/// Starts logging to standard error with the directives in `log`, and installs the TLS provider.
/// To be called once, first in `main`.
pub fn init(name: &'static str, log: &str) {
    let filter = EnvFilter::try_new(log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    // Fails only when a provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing::debug!(name, version = crate::VERSION, "started");
}
