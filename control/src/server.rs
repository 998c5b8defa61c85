//! Commands by name, and the sessions in which peers give them.

use crate::declaration::Schema;
use crate::events::Events;
use crate::json::Splitter;
use crate::session::{Fds, Outbox};
use crate::transport::{Listener, Stream};
use crate::{Error, ErrorClass, PROTOCOL};
use crossbeam_channel::{Receiver, bounded};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Commands of a session that wait for the one being executed.
const QUEUE: usize = 8;

/// A command being executed: its arguments, which fit the declaration, and what its session has.
pub struct Call<'a> {
    arguments: Map<String, Value>,
    /// Descriptors that came with the command.
    fds: Vec<OwnedFd>,
    named: &'a Fds,
    after: Vec<Box<dyn FnOnce() + Send>>,
}

impl Call<'_> {
    /// An argument, if it was given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.arguments.get(name)
    }
    #[must_use]
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
    /// The text of an argument that is declared, and not as optional.
    #[must_use]
    pub fn required(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }
    #[must_use]
    pub fn unsigned(&self, name: &str) -> Option<u64> {
        self.get(name)?.as_u64()
    }
    /// False if it was not given.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
    /// Takes the first descriptor that came with the command.
    ///
    /// # Errors
    /// None came.
    pub fn take_fd(&mut self) -> Result<OwnedFd, Error> {
        if self.fds.is_empty() {
            return Err(Error::new("No file descriptor supplied via SCM_RIGHTS"));
        }
        Ok(self.fds.remove(0))
    }
    /// The session's descriptors.
    #[must_use]
    pub fn named_fds(&self) -> &Fds {
        self.named
    }
    /// Does something once the reply is on its way.
    pub fn after_reply(&mut self, f: impl FnOnce() + Send + 'static) {
        self.after.push(Box::new(f));
    }
}

/// What a command does. Handlers run in several threads at once.
pub type Handler<C> = fn(&C, &mut Call<'_>) -> Result<Value, Error>;

/// The commands that there are.
pub struct Commands<C>(BTreeMap<&'static str, Handler<C>>);

impl<C> Default for Commands<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C> Commands<C> {
    /// Adds commands with what they do.
    pub fn add(&mut self, commands: &[(&'static str, Handler<C>)]) {
        self.0.extend(commands.iter().copied());
    }
}

/// What the protocol itself does.
const OWN: &[&str] = &["qmp_capabilities", "query-commands", "query-qmp-schema", "query-events"];

/// Carries out commands, in sessions or for the program itself.
pub struct Server<C> {
    schema: Arc<Schema>,
    commands: Commands<C>,
    context: C,
    events: Arc<Events>,
    package: String,
}

/// A session's state that reading and executing share.
#[derive(Default)]
struct Session {
    outbox: Arc<Outbox>,
    oob: AtomicBool,
    named: Fds,
}

struct Request {
    value: Result<Value, Error>,
    fds: Vec<OwnedFd>,
}

/// The parts of a request.
struct Parts {
    name: String,
    oob: bool,
    arguments: Map<String, Value>,
}

fn parts(value: Value, oob_enabled: bool) -> Result<Parts, Error> {
    let Value::Object(members) = value else { return Err(Error::new("QMP input must be a JSON object")) };
    let (mut name, mut arguments) = (None, Map::new());
    for (key, value) in members {
        match (key.as_str(), value) {
            ("execute", Value::String(s)) if name.is_none() => name = Some((s, false)),
            ("exec-oob", Value::String(s)) if oob_enabled && name.is_none() => name = Some((s, true)),
            ("exec-oob", _) if !oob_enabled => return Err(Error::new("QMP input member 'exec-oob' is unexpected")),
            ("execute" | "exec-oob", Value::String(_)) => {
                return Err(Error::new("QMP input member 'execute' clashes with 'exec-oob'"));
            }
            ("execute" | "exec-oob", _) => {
                return Err(Error::new(format!("QMP input member '{key}' must be a string")));
            }
            ("arguments", Value::Object(given)) => arguments = given,
            ("arguments", _) => return Err(Error::new("QMP input member 'arguments' must be an object")),
            ("id", _) => {}
            _ => return Err(Error::new(format!("QMP input member '{key}' is unexpected"))),
        }
    }
    let (name, oob) = name.ok_or_else(|| Error::new("QMP input lacks member 'execute'"))?;
    Ok(Parts { name, oob, arguments })
}

impl<C: Send + Sync + 'static> Server<C> {
    /// `package` names the program and its version. Every command must be declared.
    #[must_use]
    pub fn new(
        schema: &Arc<Schema>,
        commands: Commands<C>,
        context: C,
        events: &Arc<Events>,
        package: String,
    ) -> Arc<Self> {
        for name in commands.0.keys() {
            assert!(schema.command(name).is_some(), "the command {name} is not declared");
        }
        Arc::new(Self { schema: schema.clone(), commands, context, events: events.clone(), package })
    }
    #[must_use]
    pub fn context(&self) -> &C {
        &self.context
    }
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }
    /// Is there this command?
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.commands.0.contains_key(name) || OWN.contains(&name)
    }
    fn version(&self) -> Value {
        let (major, minor, micro) = PROTOCOL;
        json!({"qemu": {"major": major, "minor": minor, "micro": micro}, "package": self.package})
    }

    /// Executes a command for the program itself.
    ///
    /// # Errors
    /// The command's, or those of its arguments.
    pub fn call(&self, name: &str, arguments: Value) -> Result<Value, Error> {
        let arguments = match arguments {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        let named = Fds::default();
        let (result, after) = self.execute(Parts { name: name.to_owned(), oob: false, arguments }, Vec::new(), &named);
        after.into_iter().for_each(|f| f());
        result
    }

    fn execute(
        &self,
        parts: Parts,
        fds: Vec<OwnedFd>,
        named: &Fds,
    ) -> (Result<Value, Error>, Vec<Box<dyn FnOnce() + Send>>) {
        let mut call = Call { arguments: parts.arguments, fds, named, after: Vec::new() };
        let result = self.checked(&parts.name, parts.oob, &mut call);
        (result, call.after)
    }

    fn checked(&self, name: &str, oob: bool, call: &mut Call<'_>) -> Result<Value, Error> {
        let declared = self.schema.command(name).filter(|_| self.has(name)).ok_or_else(|| Error::no_command(name))?;
        if oob && !declared.oob {
            return Err(Error::new(format!("The command {name} does not support OOB")));
        }
        self.schema.check_members(declared.arguments, &call.arguments)?;
        let result = match name {
            "query-commands" => Ok(self
                .schema
                .command_names()
                .filter(|name| self.has(name))
                .map(|name| json!({"name": name}))
                .collect()),
            "query-events" => Ok(self.schema.event_names().map(|name| json!({"name": name})).collect()),
            "query-qmp-schema" => Ok(self.schema.introspect(|name| self.has(name))),
            _ => match self.commands.0.get(name) {
                Some(handler) => handler(&self.context, call),
                None => Err(Error::no_command(name)),
            },
        }?;
        let wrong = self.schema.check(declared.returns, &result);
        debug_assert!(wrong.is_ok(), "{name} returns {result}: {wrong:?}");
        Ok(result)
    }

    fn negotiate(&self, value: Value, session: &Session) -> Result<Value, Error> {
        let parts = parts(value, false)?;
        if parts.name != "qmp_capabilities" {
            let text = if self.has(&parts.name) || self.schema.command(&parts.name).is_some() {
                "Expecting capabilities negotiation with 'qmp_capabilities'".to_owned()
            } else {
                Error::no_command(&parts.name).text
            };
            return Err(Error::of(ErrorClass::CommandNotFound, text));
        }
        let declared = self.schema.command(&parts.name).ok_or_else(|| Error::no_command(&parts.name))?;
        self.schema.check_members(declared.arguments, &parts.arguments)?;
        let oob =
            parts.arguments.get("enable").and_then(Value::as_array).is_some_and(|all| all.contains(&json!("oob")));
        session.oob.store(oob, Ordering::Relaxed);
        session.outbox.negotiated.store(true, Ordering::Relaxed);
        Ok(json!({}))
    }

    fn answer(&self, request: Request, session: &Session) {
        let id = request.value.as_ref().ok().and_then(|v| v.get("id")).cloned();
        let mut after = Vec::new();
        let result = request.value.and_then(|value| {
            if !session.outbox.negotiated.load(Ordering::Relaxed) {
                return self.negotiate(value, session);
            }
            let parts = parts(value, session.oob.load(Ordering::Relaxed))?;
            if parts.name == "qmp_capabilities" {
                let text = "Capabilities negotiation is already complete, command ignored";
                return Err(Error::of(ErrorClass::CommandNotFound, text));
            }
            let (result, more) = self.execute(parts, request.fds, &session.named);
            after = more;
            result
        });
        let mut reply = match result {
            Ok(value) => json!({"return": value}),
            Err(e) => json!({"error": e.to_json()}),
        };
        if let Some(id) = id {
            reply["id"] = id;
        }
        session.outbox.reply(format!("{reply}\r\n").as_bytes());
        after.into_iter().for_each(|f| f());
    }

    /// Serves the peers of a listener, one after the other, in threads of its own. With `wait` the first one is awaited here.
    ///
    /// # Errors
    /// The host's error.
    pub fn listen(self: &Arc<Self>, mut listener: Listener, wait: bool) -> std::io::Result<()> {
        let first = if wait { listener.accept().transpose()? } else { None };
        let server = self.clone();
        std::thread::Builder::new().name("rhea-monitor".to_owned()).spawn(move || {
            if let Some(stream) = first {
                server.serve(stream);
            }
            while let Some(accepted) = listener.accept() {
                match accepted {
                    Ok(stream) => server.serve(stream),
                    Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
                }
            }
        })?;
        Ok(())
    }

    /// One session: this thread reads, and executes what is out of band; others execute in turn, and write.
    fn serve(self: &Arc<Self>, mut stream: Stream) {
        let session = Arc::new(Session::default());
        let (sender, receiver) = bounded(QUEUE);
        let started = self.start(&session, &stream, receiver);
        if let Err(e) = started {
            eprintln!("rhea: monitor: {e}");
            return stream.end();
        }
        self.events.subscribe(&session.outbox);
        let greeting = json!({"QMP": {"version": self.version(), "capabilities": ["oob"]}});
        session.outbox.reply(format!("{greeting}\r\n").as_bytes());
        let (mut splitter, mut fds, mut data) = (Splitter::default(), Vec::new(), [0; 4096]);
        while !session.outbox.closed() {
            let n = match stream.receive(&mut data, &mut fds) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            splitter.push(&data[..n], &mut |value| {
                let request = Request { value, fds: std::mem::take(&mut fds) };
                let oob = session.oob.load(Ordering::Relaxed);
                if oob && request.value.as_ref().is_ok_and(|v| v.get("exec-oob").is_some()) {
                    self.answer(request, &session);
                } else {
                    // The executor ends after this thread only.
                    let _ = sender.send(request);
                }
            });
        }
        // What was asked is answered; then the writer ends too.
        drop(sender);
        if session.outbox.closed() {
            stream.end();
        }
    }

    fn start(
        self: &Arc<Self>,
        session: &Arc<Session>,
        stream: &Stream,
        requests: Receiver<Request>,
    ) -> std::io::Result<()> {
        let (mine, mut peer) = (session.clone(), stream.try_clone()?);
        // The session is new: the place is free.
        let _ = session.outbox.peer.set(stream.try_clone()?);
        std::thread::Builder::new().name("rhea-monitor-out".to_owned()).spawn(move || {
            mine.outbox.write_to(&mut peer);
            peer.end();
        })?;
        let (mine, server) = (session.clone(), self.clone());
        let executor = std::thread::Builder::new().name("rhea-monitor-run".to_owned()).spawn(move || {
            for request in requests {
                server.answer(request, &mine);
            }
            mine.outbox.close();
        });
        if executor.is_err() {
            session.outbox.close();
        }
        executor.map(|_| ())
    }
}
