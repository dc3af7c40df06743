//! A PostgreSQL with a replica and a RabbitMQ for the tests that need no cluster: those of our images, on loopback,
//! thrown away after.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::images::{Images, Store};
use crate::port_forward::dying_with_us;
use crate::stage::Stage;
use crate::test::suites::Environment;

/// The users of the two images.
const POSTGRES_USER: (u32, u32) = (100, 102);
const RABBITMQ_USER: (u32, u32) = (999, 999);
/// The start of a connection in AMQP 0-9-1, which the server answers with a method frame.
const AMQP_GREETING: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Running servers. They end when this is dropped, and with this process however it ends.
#[derive(Debug)]
pub(crate) struct Servers {
    postgres: Server,
    replica: Server,
    rabbitmq: Server,
}

#[derive(Debug)]
struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Servers {
    /// Starts all and waits until they answer.
    pub(crate) fn start(stage: &Stage, images: &Images) -> Result<Self> {
        let store = images.store();
        let logs = stage.log_path().parent().context("the log has no folder")?.to_owned();
        let postgres_root = store.mount(stage, "test-postgres", images.stored("postgres")?)?;
        let mut postgres = start_postgres(&postgres_root, &logs.join("postgres.log"))?;
        let root = store.mount(stage, "test-rabbitmq", images.stored("rabbitmq")?)?;
        let rabbitmq = start_rabbitmq(&root, &logs.join("rabbitmq.log"))?;
        postgres.wait_until("PostgreSQL answers", postgres_answers)?;
        let mut servers = Self {
            replica: start_replica(&postgres_root, &logs.join("replica.log"), postgres.port)?,
            postgres,
            rabbitmq,
        };
        servers.replica.wait_until("the replica answers", postgres_answers)?;
        servers.rabbitmq.wait_until("RabbitMQ answers", rabbitmq_answers)?;
        stage.note(format!(
            "PostgreSQL on port {}, its replica on {}, RabbitMQ on {}",
            servers.postgres.port, servers.replica.port, servers.rabbitmq.port
        ));
        Ok(servers)
    }

    /// Where the tests find them.
    pub(crate) fn environment(&self) -> Environment {
        let postgres = format!("postgres://postgres@127.0.0.1:{}/postgres", self.postgres.port);
        let amqp = format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.rabbitmq.port);
        let replica = format!("127.0.0.1:{}", self.replica.port);
        Environment::from([
            ("RINGWRIGHT_TEST_POSTGRES", postgres),
            ("RINGWRIGHT_TEST_REPLICA", replica),
            ("RINGWRIGHT_TEST_AMQP", amqp),
        ])
    }

    /// Returns when one of them ends, which none does by itself.
    pub(crate) fn wait(&mut self) -> Result<()> {
        loop {
            self.postgres.still_runs("serving tests")?;
            self.replica.still_runs("serving tests")?;
            self.rabbitmq.still_runs("serving tests")?;
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Ends all and throws away what they wrote.
    pub(crate) fn stop(self, stage: &Stage, store: &Store) -> Result<()> {
        drop(self);
        store.unmount(stage)
    }
}

fn start_postgres(root: &Path, log: &Path) -> Result<Server> {
    let port = free_port()?;
    // Neither synchronised to disk nor vacuumed: the data is worth nothing, and gone in minutes. wal_level as on a shard;
    // slots and workers for the moves that tests run at the same time, a handful each. The replica has no slot, and
    // each database that is dropped makes a checkpoint: what it has not read yet must be kept for it.
    let script = format!(
        "set -e
        initdb --pgdata /tmp/data --auth trust --encoding UTF8 --locale C.UTF-8 --username postgres
        exec postgres -D /tmp/data -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=/tmp \\
            -c wal_level=logical -c fsync=off -c full_page_writes=off -c autovacuum=off \\
            -c max_connections=300 -c shared_buffers=128MB -c wal_keep_size=1GB \\
            -c max_replication_slots=100 -c max_wal_senders=100 -c max_worker_processes=100 \\
            -c max_logical_replication_workers=80 -c max_sync_workers_per_subscription=4 -c wal_retrieve_retry_interval=200ms"
    );
    run_postgres(root, &script, log, port)
}

/// A standby of the PostgreSQL at `master`. It streams under the name that the store gives to a member at 127.0.0.1.
fn start_replica(root: &Path, log: &Path, master: u16) -> Result<Server> {
    let port = free_port()?;
    let script = format!(
        "set -e
        pg_basebackup --dbname 'host=127.0.0.1 port={master} user=postgres application_name=127' \\
            --checkpoint fast --write-recovery-conf --pgdata /tmp/replica
        exec postgres -D /tmp/replica -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories=/tmp \\
            -c wal_level=logical -c fsync=off -c max_connections=300 -c shared_buffers=64MB -c max_replication_slots=100 \\
            -c max_wal_senders=100 -c max_worker_processes=100"
    );
    run_postgres(root, &script, log, port)
}

fn run_postgres(root: &Path, script: &str, log: &Path, port: u16) -> Result<Server> {
    let path = "/usr/lib/postgresql/17/bin:/usr/bin:/bin";
    let variables = [("PATH", path), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
    Ok(Server {
        child: run_in(root, POSTGRES_USER, script, &variables, log)?,
        port,
        log: log.to_owned(),
    })
}

fn start_rabbitmq(root: &Path, log: &Path) -> Result<Server> {
    let (port, distribution, epmd) = (free_port()?, free_port()?.to_string(), free_port()?.to_string());
    // Erlang asks for the address of its node's host name.
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").context("writing /etc/hosts for the test broker")?;
    let script = format!(
        "set -e
        mkdir -p /tmp/rabbitmq
        echo 'listeners.tcp.1 = 127.0.0.1:{port}' > /tmp/rabbitmq/rabbitmq.conf
        echo '[].' > /tmp/rabbitmq/plugins
        exec rabbitmq-server"
    );
    let variables = [
        ("PATH", "/usr/lib/rabbitmq/bin:/usr/bin:/bin"),
        ("HOME", "/tmp/rabbitmq"),
        ("LANG", "C.UTF-8"),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
        ("ERL_EPMD_PORT", &epmd),
        ("RABBITMQ_CONFIG_FILE", "/tmp/rabbitmq/rabbitmq.conf"),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null"),
        ("RABBITMQ_DIST_PORT", &distribution),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "/tmp/rabbitmq/plugins"),
        ("RABBITMQ_LOGS", "-"),
        ("RABBITMQ_MNESIA_BASE", "/tmp/rabbitmq"),
        ("RABBITMQ_NODENAME", "ringwright-test@localhost"),
    ];
    let child = run_in(root, RABBITMQ_USER, &script, &variables, log)?;
    Ok(Server {
        child,
        port,
        log: log.to_owned(),
    })
}

/// Runs a shell script inside an image's file system, as its user, in mount and process namespaces of its own: when the
/// first process of the namespace goes, the kernel ends all the others and takes the mounts back. What it writes to /tmp is
/// in memory: each test makes databases of hundreds of files and throws them away, and a disk's file system had most of the
/// work with that.
fn run_in(root: &Path, user: (u32, u32), script: &str, variables: &[(&str, &str)], log: &Path) -> Result<Child> {
    let enter = "mount -t proc proc \"$0/proc\" && mount --rbind /dev \"$0/dev\" && \
                 mount -t tmpfs -o mode=1777,size=6g tmpfs \"$0/tmp\" && \
                 exec chroot \"$0\" setpriv --reuid=\"$1\" --regid=\"$2\" --clear-groups --pdeathsig=KILL \
                 env --ignore-environment \"${@:4}\" sh -c \"$3\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "bash", "-c", enter])
        .arg(root);
    command.args([user.0.to_string(), user.1.to_string(), script.to_owned()]);
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    let file = fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let both = file
        .try_clone()
        .with_context(|| format!("opening {} twice", log.display()))?;
    let mut tied = dying_with_us(&command);
    tied.stdout(Stdio::from(file))
        .stderr(Stdio::from(both))
        .spawn()
        .context("starting a test server with unshare")
}

/// A loopback port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

impl Server {
    fn still_runs(&mut self, attempt: &str) -> Result<()> {
        match self.child.try_wait().context("looking at a test server")? {
            None => Ok(()),
            Some(status) => bail!("{attempt}: it ended ({status}); see {}", self.log.display()),
        }
    }

    fn wait_until(&mut self, what: &str, answers: fn(SocketAddr) -> std::io::Result<bool>) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let deadline = Instant::now() + Duration::from_secs(90);
        while !answers(address).unwrap_or(false) {
            self.still_runs(&format!("waiting until {what}"))?;
            if Instant::now() > deadline {
                bail!("waiting until {what}: not within 90 s; see {}", self.log.display());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// A start-up message for the superuser is answered with authentication ok (`R`), not with an error (`E`).
fn postgres_answers(address: SocketAddr) -> std::io::Result<bool> {
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut stream = connect(address)?;
    let length = u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&196_608_u32.to_be_bytes())?; // protocol 3.0
    stream.write_all(parameters)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(kind == *b"R")
}

fn rabbitmq_answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = connect(address)?;
    stream.write_all(AMQP_GREETING)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(kind == [1])
}
