//! The stages of a build, each waited for where a later one needs it: the edges of the build's graph.

use tokio::sync::watch;

use super::stage::Stage;

pub struct Stages {
    names: Vec<Option<String>>,
    ended: Vec<watch::Sender<Option<Stage>>>,
}

impl Stages {
    pub fn new(stages: &[dockerfile::Stage]) -> Self {
        Self {
            names: stages.iter().map(|stage| stage.name.clone()).collect(),
            ended: stages.iter().map(|_| watch::Sender::default()).collect(),
        }
    }

    /// The first stage of this name before stage `number`. Case does not count.
    pub fn named(&self, name: &str, number: usize) -> Option<usize> {
        let name = name.to_lowercase();
        self.names[..number].iter().position(|other| other.as_ref() == Some(&name))
    }

    pub fn count(&self) -> usize {
        self.names.len()
    }

    pub fn name(&self, number: usize) -> Option<String> {
        self.names.get(number).cloned().flatten()
    }

    pub fn end(&self, number: usize, stage: &Stage) {
        self.ended[number].send_replace(Some(stage.clone()));
    }

    /// Waits for the end of a stage; for ever for one that fails.
    pub async fn ended(&self, number: usize) -> Stage {
        let mut ended = self.ended[number].subscribe();
        match ended.wait_for(Option::is_some).await.map(|stage| stage.clone()) {
            Ok(Some(stage)) => stage,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn earlier_stages_by_name() {
        let source = "FROM a AS one\nFROM one AS Two\nFROM b AS one\n";
        let stages = Stages::new(&dockerfile::Dockerfile::parse(source).expect("parsed").stages);
        for (name, number, found) in
            [("ONE", 1, Some(0)), ("one", 0, None), ("two", 1, None), ("two", 2, Some(1)), ("one", 3, Some(0))]
        {
            assert_eq!(stages.named(name, number), found, "{name} before {number}");
        }
        let end = async { stages.end(0, &Stage { image_id: "i".to_owned(), ..Stage::default() }) };
        let (stage, ()) = tokio::join!(stages.ended(0), end);
        assert_eq!(stage.image_id, "i");
    }
}
