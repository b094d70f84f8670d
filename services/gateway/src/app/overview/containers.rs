use std::collections::BTreeMap;

use super::page::{List, Page};
use super::shape::Time;
use crate::app::containers::is_up;
use crate::app::{App, Outcome, now_ns, view};
use crate::{shape, words};

words! {
    /// Docker's words for the state of a container.
    pub enum State {
        Created = "created",
        Running = "running",
        Paused = "paused",
        Restarting = "restarting",
        Removing = "removing",
        Exited = "exited",
        Dead = "dead",
    }
}

shape! {
    /// A container.
    pub struct Container {
        /// Its id.
        pub id: String,
        /// Its name.
        pub name: String,
        /// Name of its image as it was given, or the image's short id.
        pub image: String,
        /// Id of its image.
        pub image_id: String,
        /// What it runs.
        pub command: Vec<String>,
        /// Its state.
        pub state: State,
        /// Its state in Docker's words, such as "Up 3 minutes".
        pub status: String,
        /// How its process ended; null until it has.
        pub exit_code: Option<i32>,
        /// The node that keeps it.
        pub node_id: String,
        /// Its address on the bridge, while it is up.
        pub ip_address: Option<String>,
        /// Its labels.
        pub labels: BTreeMap<String, String>,
        /// When it was made.
        pub created_at: Option<Time>,
        /// When it was started last.
        pub started_at: Option<Time>,
        /// When it ended last.
        pub finished_at: Option<Time>,
    }
}

impl App {
    /// Containers in all states.
    pub async fn container_list(&self, page: &Page) -> Outcome<List<Container>> {
        let images = self.db.images().await?;
        let containers = self.db.containers().await?;
        let now = now_ns();
        let list = page.of(containers, |container| (container.created_ms, container.id.clone()));
        Ok(list.map(|container| {
            let (spec, status) = (view::spec_of(&container), view::status_of(&container));
            let endpoint = status.network.as_ref().filter(|_| is_up(status.state()));
            Container {
                image: view::image_name_of(&container, &images),
                command: spec.args,
                state: State::of(view::state_word(status.state())).unwrap_or(State::Dead),
                status: view::status_words(&status, now),
                exit_code: (status.finished_at_ns != 0).then_some(status.exit_code),
                ip_address: endpoint.map(|network| network.ip_address.clone()).filter(|address| !address.is_empty()),
                labels: spec.labels.into_iter().collect(),
                created_at: Time::of_ms(container.created_ms),
                started_at: Time::of_ns(status.started_at_ns),
                finished_at: Time::of_ns(status.finished_at_ns),
                id: container.id,
                name: container.name,
                image_id: container.image_id,
                node_id: container.node_id,
            }
        }))
    }
}
