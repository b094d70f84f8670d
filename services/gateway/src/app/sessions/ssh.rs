use std::sync::Arc;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use model::ErrorKind;
use streams::{Duplex, Pending};
use tonic::metadata::MetadataValue;

use super::connection::Connection;
use super::{Session, refused};
use crate::app::{App, Failure, Outcome};

/// Key of the metadata that names an agent.
const ID: &str = "buildkit.ssh.id";

impl App {
    /// A ticket for one connection to an agent of a build's client.
    pub async fn forward_ssh(&self, user: &str, request: proto::SshForward) -> Outcome<proto::SshForwardReply> {
        let (session, _) = self.session_of(user, &request.build_id, request.attempt).await?;
        let mut client = SshClient::with_origin(session.connection.clone(), Connection::origin());
        let checked = client.check_agent(CheckAgentRequest { id: request.id.clone() }).await;
        checked.map_err(|status| match status.code() {
            tonic::Code::Unimplemented => {
                Failure::not_found(format!("no SSH key {:?} forwarded from the client", request.id))
            }
            _ => refused(&status),
        })?;
        let (ticket, pending) = self.tickets.issue();
        tokio::spawn(async move {
            if let Err(failure) = forward(&session, &request.id, pending).await {
                tracing::debug!(%failure, "a connection to a client's agent ended");
            }
        });
        Ok(proto::SshForwardReply { address: ticket.address, ticket: ticket.secret })
    }
}

async fn forward(session: &Arc<Session>, id: &str, pending: Pending) -> Outcome<()> {
    let Duplex { reader, mut writer } = pending.accept().await?;
    let mut client = SshClient::with_origin(session.connection.clone(), Connection::origin());
    // A stream that breaks off ends the connection to the agent, too.
    let input = futures::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await.ok()??;
        Some((BytesMessage { data: bytes.to_vec() }, reader))
    });
    let mut request = tonic::Request::new(input);
    let id: MetadataValue<_> = id.parse().map_err(|_| Failure::invalid(format!("invalid SSH id {id:?}")))?;
    request.metadata_mut().insert(ID, id);
    let mut output = client.forward_agent(request).await.map_err(|status| refused(&status))?.into_inner();
    while let Some(message) = output.message().await.map_err(|status| refused(&status))? {
        writer.send(message.data.into()).await?;
    }
    writer.finish().await.map_err(|error| Failure::new(ErrorKind::Unavailable, error.to_string()))
}
