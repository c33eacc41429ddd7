//! The run: traffic, one fault after the other, and the judgement.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, Handle, Role};
use super::fault::Fault;
use super::kinds::ClientKind;
use super::ledger::Ledger;
use super::member::Trouble;
use super::members::{Living, differences, list};
use super::report::Report;
use super::schedule::{Endless, schedule};
use super::stage::{RESUME_WINDOW, Stage};
use super::traffic::{Published, Publisher, User, Watcher, group_name, publish, upload};
use super::{Options, plain, pubsub, readers, record};
use crate::random::Random;

const PROBE: Duration = Duration::from_millis(50);
/// Time for nodes to notice that a client's time is over.
const MARGIN: Duration = Duration::from_secs(20);
/// How many faults are between two looks at lists of members.
const QUIET_POINT: usize = 12;

/// Everything that runs.
pub(super) struct Run {
    options: Options,
    stage: Stage,
    ledger: Arc<Ledger>,
    published: Arc<Published>,
    watcher: Arc<Watcher>,
    publisher: Arc<Publisher>,
    users: Vec<Arc<User>>,
    handles: Vec<Handle>,
    /// Chooses the connections to cut; the schedule has its own random numbers.
    random: Random,
    stop: Arc<AtomicBool>,
    /// Wrong members, and connections that had more than one disconnect hook: each is reported once.
    told: BTreeSet<String>,
    /// The clients.
    connected: JoinSet<()>,
    /// Tasks that make clients talk. They end when they are stopped and their last call was answered.
    talking: JoinSet<()>,
}

impl Run {
    pub(super) async fn start(options: Options) -> Self {
        let stage = Stage::start(&options).await;
        let ledger = Arc::new(Ledger::new());
        let groups = options.groups.min(options.clients) as usize;
        let published = Arc::new(Published::new(groups));
        let others = ClientKind::OTHERS
            .iter()
            .flat_map(|kind| std::iter::repeat_n(*kind, options.others as usize));
        let kinds = std::iter::repeat_n(ClientKind::Stateful, options.clients as usize).chain(others);
        let user = |(index, kind)| Arc::new(User::new(index, kind, index % groups, &published, &ledger));
        let users: Vec<_> = kinds.enumerate().map(user).collect();
        let watcher = Arc::new(Watcher::new(users.len(), &ledger));
        let mut run = Self {
            random: Random::new(options.seed ^ 0xC7),
            options,
            stage,
            ledger,
            published,
            watcher,
            publisher: Arc::new(Publisher::default()),
            users,
            handles: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            told: BTreeSet::new(),
            connected: JoinSet::new(),
            talking: JoinSet::new(),
        };
        run.connect().await;
        run.talk(groups);
        run
    }

    /// A client of this kind behind the balancer; of none, a stateful one that must not be hurt.
    fn client(&mut self, name: &str, kind: Option<ClientKind>, role: Arc<dyn Role>) -> Handle {
        let is_hurt = kind.is_some();
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
        match kind.unwrap_or(ClientKind::Stateful) {
            ClientKind::Stateful => self.runs(client.start()),
            ClientKind::WebPubSub => self.runs(pubsub::start(client)),
            kind @ (ClientKind::EventSource | ClientKind::PlainSocket) => {
                self.runs(readers::start(client, kind))
            }
            kind => self.runs(plain::start(client, kind)),
        }
    }

    fn runs(&mut self, (handle, running): (Handle, impl Future<Output = ()> + Send + 'static)) -> Handle {
        self.connected.spawn(running);
        handle
    }

    async fn connect(&mut self) {
        let watcher = Arc::clone(&self.watcher);
        let _calls_nothing = self.client("the watcher", None, watcher);
        for user in self.users.clone() {
            let handle = self.client(&user.name(), Some(user.kind), user);
            self.handles.push(handle);
        }
        let is_settled =
            self.wait(|run| run.watcher.session().is_some() && run.users.iter().all(|user| user.has(0)));
        assert!(is_settled.await, "the clients connect before anything goes wrong");
        self.ledger
            .say(&format!("{} clients are connected", self.users.len()));
    }

    fn talk(&mut self, groups: usize) {
        let role = Arc::clone(&self.publisher);
        let publisher = self.client("the publisher", None, role);
        let (published, stop) = (Arc::clone(&self.published), Arc::clone(&self.stop));
        self.talking
            .spawn(publish(publisher, published, groups, self.options.rate, stop));
        let pause = Duration::from_millis(self.options.upload_ms.into());
        let callers = self.users.iter().zip(&self.handles);
        for (user, handle) in callers.filter(|(user, _)| user.kind.calls()) {
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

    /// The whole schedule, or as much of it as there is time for.
    pub(super) async fn hurt(&mut self) {
        let kinds = self.options.kinds();
        let gap = Duration::from_millis(self.options.gap_ms);
        self.settle(None).await;
        sleep(gap).await; // traffic before the first fault
        if kinds.is_empty() {
            let faults = schedule(self.options.seed, self.options.counts());
            let count = faults.len();
            for (i, fault) in faults.into_iter().enumerate() {
                self.suffer(&fault, &format!("fault {} of {count}", i + 1)).await;
                sleep(gap).await; // traffic between the faults
            }
            return;
        }
        let end = Instant::now() + self.options.time();
        let faults = Endless::new(self.options.seed, kinds, self.options.nodes as usize);
        for (i, fault) in faults.enumerate() {
            if Instant::now() > end {
                return;
            }
            self.suffer(&fault, &format!("fault {}", i + 1)).await;
            sleep(gap).await; // traffic between the faults
            if (i + 1) % QUIET_POINT == 0 {
                self.check_members().await;
            }
        }
    }

    async fn suffer(&mut self, fault: &Fault, title: &str) {
        self.ledger.fault(fault.kind());
        self.ledger.say(&format!("{title}: {fault:?}"));
        match fault {
            Fault::CutClients { percent } => self.cut_clients(*percent),
            Fault::CutNode { node } => self.cut_node(*node),
            _ => self.stage.suffer(fault).await,
        }
        self.settle(Some(fault)).await;
    }

    fn write_logs(&self) {
        if let Some(folder) = &self.options.logs
            && let Err(error) = self.stage.write_logs(folder)
        {
            eprintln!("the logs can't be written: {error}");
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
    async fn settle(&mut self, fault: Option<&Fault>) {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(self.options.bound.into());
        while let Some(unready) = self.stage.unready().await {
            if Instant::now() >= deadline {
                self.write_logs();
                panic!("a node is not ready any more: {unready}");
            }
            sleep(PROBE).await;
        }
        self.stage.servers_are_settled().await;
        let marks: Vec<_> = self.users.iter().map(|user| self.mark(user)).collect();
        let (published, _) = self.published.totals();
        let has_moved = |(user, (target, done)): (&Arc<User>, &(u64, usize))| {
            user.has(*target) && (!user.kind.calls() || user.done() > *done)
        };
        let have_others =
            |run: &Self| run.watcher.session().is_some() && run.published.totals().0 > published;
        let is_met = |run: &Self| have_others(run) && run.users.iter().zip(&marks).all(has_moved);
        if !self.wait(is_met).await {
            if !have_others(self) {
                let what = "they don't go on".to_owned();
                self.ledger.wrong(Trouble::Silent, "publisher and watcher", what);
            }
            for ((user, mark), handle) in self.users.iter().zip(&marks).zip(&self.handles) {
                if !has_moved((user, mark)) {
                    user.is_silent(mark.0);
                    handle.cut(); // what comes later is to be seen as well
                }
            }
        }
        self.notice_hooks();
        let may_be_out = |node| fault.is_some_and(|fault| fault.may_shut_out(node));
        let healthy = self.stage.healthy_nodes_shut_out(may_be_out);
        if healthy > 0 {
            let what = format!("{healthy} healthy nodes were shut out");
            self.ledger.wrong_state(&what, |row| row.shut_out += healthy);
        }
        let row = self.ledger.latest();
        let (took, resets, resumes) = (started.elapsed().as_secs_f64(), row.resets, row.resumes);
        self.ledger.say(&format!(
            "  settled after {took:.2} s; {resets} resets, {resumes} resumes"
        ));
    }

    /// The connections that live in a group.
    fn living(&self, group: usize) -> Living {
        let mut living = Living::default();
        let users = self.users.iter().filter(|user| user.group() == group);
        for connection in users.filter_map(|user| user.connection()) {
            match connection {
                Some(id) => drop(living.ids.insert(id)),
                None => living.unknown += 1,
            }
        }
        living
    }

    /// Compares lists of members with the living clients, when nothing has gone wrong for a while: an ended client is
    /// gone when its node's lease, or its time to come back, is over.
    async fn check_members(&mut self) {
        let rest = self.stage.rest();
        let deadline = Instant::now() + RESUME_WINDOW + MARGIN;
        for group in 0..self.options.groups.min(self.options.clients) as usize {
            let name = group_name(group);
            let wrong = loop {
                let wrong = match list(&rest, &name).await {
                    Ok(listed) => differences(&listed, &self.living(group)),
                    Err(error) => vec![error],
                };
                if wrong.is_empty() || Instant::now() > deadline {
                    break wrong;
                }
                sleep(PROBE).await;
            };
            for what in wrong.into_iter().map(|what| format!("{name}: {what}")) {
                if self.told.insert(what.clone()) {
                    self.ledger.wrong_state(&what, |row| row.members += 1);
                }
            }
        }
    }

    /// Reports connections that had more than one disconnect hook by now.
    fn notice_hooks(&mut self) {
        let record = std::fs::read_to_string(self.stage.record()).unwrap_or_default();
        for (id, reasons) in record::repeated(&record) {
            let what = format!("{id} had more than one hook: {}", reasons.join("; "));
            if self.told.insert(id) {
                self.ledger.wrong_state(&what, |row| row.twice += 1);
            }
        }
    }

    /// Judges the disconnect hooks of all that ended.
    async fn check_hooks(&mut self) {
        let deadline = Instant::now() + RESUME_WINDOW + MARGIN;
        let hooks = loop {
            let record = std::fs::read_to_string(self.stage.record()).unwrap_or_default();
            let groups = 0..self.options.groups.min(self.options.clients) as usize;
            let mut all = Living::default();
            for living in groups.map(|group| self.living(group)) {
                all.ids.extend(living.ids);
                all.unknown += living.unknown;
            }
            all.ids.extend(self.watcher.connection());
            all.ids.extend(self.publisher.connection());
            let hooks = record::judge(&record, &all.ids, all.unknown);
            if hooks.never.is_empty() || Instant::now() > deadline {
                break hooks;
            }
            sleep(PROBE).await;
        };
        self.notice_hooks();
        for id in hooks.of_living {
            let what = format!("{id} lives and had a hook");
            self.ledger.wrong_state(&what, |row| row.twice += 1);
        }
        if hooks.unknowable > 0 {
            let count = hooks.unknowable;
            self.ledger.say(&format!(
                "{count} connections had no hook: their node died, and Redis forgot them at once"
            ));
        }
        for id in hooks.never {
            let what = format!("{id} ended without a hook");
            self.ledger.wrong_state(&what, |row| row.never += 1);
        }
    }

    fn mark(&self, user: &User) -> (u64, usize) {
        (self.published.newest(user.group()), user.done())
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
        self.check_members().await;
        self.check_hooks().await;
        let unknown = self.ledger.reached(&self.stage.reached());
        self.report(unknown)
    }

    /// Accepted messages may still be on their way to the watcher.
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
            nodes,
            clients,
            others,
            seed,
            topology,
            ..
        } = &self.options;
        let [succeeded, with_error, by_reset] = calls;
        self.write_logs();
        Report {
            title: format!(
                "{clients} stateful clients and {others} of each other kind on {nodes} nodes, Redis {topology:?}, seed {seed}"
            ),
            summary: self.ledger.summary(),
            facts: vec![
                (
                    "resumes on nodes that the balancer didn't name",
                    unknown.to_string(),
                ),
                ("refused requests", self.stage.refusals()),
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
