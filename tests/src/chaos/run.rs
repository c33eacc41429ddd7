//! The run: traffic, one fault after the other, and the judgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::client::{Client, Handle, Role};
use super::ledger::Ledger;
use super::member::Trouble;
use super::report::Report;
use super::schedule::{Fault, schedule};
use super::stage::Stage;
use super::traffic::{Published, Publisher, User, Watcher, publish, upload};
use crate::random::Random;

const PROBE: Duration = Duration::from_millis(50);

/// Everything that runs.
pub(super) struct Run {
    options: Options,
    stage: Stage,
    ledger: Arc<Ledger>,
    published: Arc<Published>,
    watcher: Arc<Watcher>,
    users: Vec<Arc<User>>,
    handles: Vec<Handle>,
    /// Who is to be cut is another matter than what the schedule is.
    random: Random,
    stop: Arc<AtomicBool>,
    /// The clients.
    connected: JoinSet<()>,
    /// Who makes them talk. They end when they are told to stop and their last call was answered.
    talking: JoinSet<()>,
}

impl Run {
    pub(super) async fn start(options: Options) -> Self {
        let stage = Stage::start(&options).await;
        let ledger = Arc::new(Ledger::new());
        let groups = options.groups.min(options.clients) as usize;
        let published = Arc::new(Published::new(groups));
        let user = |index| Arc::new(User::new(index, index % groups, &published, &ledger));
        let users: Vec<_> = (0..options.clients as usize).map(user).collect();
        let watcher = Arc::new(Watcher::new(users.len(), &ledger));
        let mut run = Self {
            random: Random::new(options.seed ^ 0xC7),
            options,
            stage,
            ledger,
            published,
            watcher,
            users,
            handles: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            connected: JoinSet::new(),
            talking: JoinSet::new(),
        };
        run.connect().await;
        run.talk(groups);
        run
    }

    fn client(&mut self, name: &str, is_hurt: bool, role: Arc<dyn Role>) -> Handle {
        let address = if is_hurt {
            self.stage.address()
        } else {
            self.stage.control()
        };
        let client = Client {
            name: name.to_owned(),
            address,
            server_timeout: Duration::from_secs(self.options.server_timeout.into()),
            is_hurt,
            role,
            ledger: Arc::clone(&self.ledger),
        };
        let (handle, running) = client.start();
        self.connected.spawn(running);
        handle
    }

    async fn connect(&mut self) {
        let watcher = Arc::clone(&self.watcher);
        let _calls_nothing = self.client("the watcher", false, watcher);
        for user in self.users.clone() {
            let handle = self.client(&user.name(), true, user);
            self.handles.push(handle);
        }
        let is_settled =
            self.wait(|run| run.watcher.session().is_some() && run.users.iter().all(|user| user.has(0)));
        assert!(is_settled.await, "the clients connect before anything goes wrong");
        self.ledger
            .say(&format!("{} clients are connected", self.users.len()));
    }

    fn talk(&mut self, groups: usize) {
        let publisher = self.client("the publisher", false, Arc::new(Publisher));
        let (published, stop) = (Arc::clone(&self.published), Arc::clone(&self.stop));
        self.talking
            .spawn(publish(publisher, published, groups, self.options.rate, stop));
        let pause = Duration::from_millis(self.options.upload_ms.into());
        for (user, handle) in self.users.iter().zip(&self.handles) {
            let (user, handle, stop) = (Arc::clone(user), handle.clone(), Arc::clone(&self.stop));
            self.talking
                .spawn(upload(user, handle, Arc::clone(&self.watcher), pause, stop));
        }
    }

    /// Waits for a condition, and says whether it came about within the bound.
    async fn wait(&self, is_met: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(self.options.bound.into());
        while !is_met(self) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(PROBE).await;
        }
        true
    }

    /// The whole schedule.
    pub(super) async fn hurt(&mut self) {
        let faults = schedule(self.options.seed, self.options.counts());
        let gap = Duration::from_millis(self.options.gap_ms);
        self.settle().await;
        sleep(gap).await; // traffic before the first fault
        for (i, fault) in faults.iter().enumerate() {
            self.ledger.fault(fault.kind());
            self.ledger
                .say(&format!("fault {} of {}: {fault:?}", i + 1, faults.len()));
            match fault {
                Fault::CutClients { percent } => self.cut_clients(*percent),
                Fault::CutNode { node } => self.cut_node(*node),
                _ => self.stage.suffer(fault).await,
            }
            self.settle().await;
            sleep(gap).await; // traffic between the faults
        }
    }

    fn cut_clients(&mut self, percent: u64) {
        for handle in &self.handles {
            if self.random.between(1, 100) <= percent {
                handle.cut();
            }
        }
    }

    fn cut_node(&self, node: usize) {
        if self.stage.break_sockets(node) {
            return;
        }
        self.ledger
            .say("the kernel can't break a node's sockets: every client of all nodes is cut instead");
        self.handles.iter().for_each(Handle::cut);
    }

    /// Waits until all nodes are ready, and every client has moved on in both directions since the fault was over.
    async fn settle(&self) {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(self.options.bound.into());
        while !self.stage.is_ready().await {
            assert!(Instant::now() < deadline, "a node is not ready any more");
            sleep(PROBE).await;
        }
        let marks: Vec<_> = self.users.iter().map(|user| self.mark(user)).collect();
        let (published, _) = self.published.totals();
        let has_moved = |(user, (target, answered)): (&Arc<User>, &(u64, usize))| {
            user.has(*target) && user.answered() > *answered
        };
        let have_others =
            |run: &Self| run.watcher.session().is_some() && run.published.totals().0 > published;
        let is_met = |run: &Self| have_others(run) && run.users.iter().zip(&marks).all(has_moved);
        if !self.wait(is_met).await {
            if !have_others(self) {
                let what = "they don't go on".to_owned();
                self.ledger.wrong(Trouble::Silent, "publisher and watcher", what);
            }
            for (user, mark) in self.users.iter().zip(&marks) {
                if !has_moved((user, mark)) {
                    user.is_silent(mark.0);
                }
            }
        }
        let row = self.ledger.latest();
        let (took, resets, resumes) = (started.elapsed().as_secs_f64(), row.resets, row.resumes);
        self.ledger.say(&format!(
            "  settled after {took:.2} s; {resets} resets, {resumes} resumes"
        ));
    }

    fn mark(&self, user: &User) -> (u64, usize) {
        (self.published.newest(user.group()), user.answered())
    }

    /// Ends the traffic, waits for what is on its way, and judges.
    pub(super) async fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.ledger.say("the traffic ends");
        let bound = Duration::from_secs(self.options.bound.into());
        let ended = timeout(bound, async { while self.talking.join_next().await.is_some() {} });
        // A call that is never answered is found when its user is judged.
        let _all_in_time = ended.await;
        let has_all = |run: &Self, user: &User| user.has(run.published.newest(user.group()));
        if !self
            .wait(|run| run.users.iter().all(|user| has_all(run, user)))
            .await
        {
            for user in &self.users {
                if !has_all(&self, user) {
                    user.is_silent(self.published.newest(user.group()));
                }
            }
        }
        self.wait_for_uploads().await;
        for user in &self.users {
            for finding in user.findings(&self.watcher) {
                self.ledger.found(&user.name(), &finding);
            }
        }
        let unknown = self.ledger.reached(&self.stage.reached());
        self.report(unknown)
    }

    /// What was accepted may still be on its way to the watcher.
    async fn wait_for_uploads(&self) {
        let finds_nothing = |run: &Self| {
            run.users
                .iter()
                .all(|user| user.findings(&run.watcher).is_empty())
        };
        if !finds_nothing(self) {
            let deadline = Instant::now() + Duration::from_secs(5);
            while !finds_nothing(self) && Instant::now() < deadline {
                sleep(PROBE).await;
            }
        }
    }

    fn report(&self, unknown: usize) -> Report {
        let (done, failed) = self.published.totals();
        let mut calls = [0; 3];
        for user in &self.users {
            for (sum, count) in calls.iter_mut().zip(user.totals()) {
                *sum += count;
            }
        }
        let Options {
            nodes, clients, seed, ..
        } = &self.options;
        let [succeeded, with_error, by_reset] = calls;
        Report {
            title: format!("{clients} clients on {nodes} nodes, seed {seed}"),
            summary: self.ledger.summary(),
            facts: vec![
                (
                    "resumes on nodes that the balancer didn't name",
                    unknown.to_string(),
                ),
                ("refused sockets", self.stage.refusals()),
                ("published", format!("{done} with success, {failed} without")),
                (
                    "invocations of clients",
                    format!(
                        "{succeeded} with success, {with_error} with an error, {by_reset} ended by a reset"
                    ),
                ),
            ],
            panics: self.stage.panics(),
        }
    }
}
