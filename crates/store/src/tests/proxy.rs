//! A proxy before one database: it puts the database's name into the login, and cuts connections on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    faults: Arc<Faults>,
    task: AbortHandle,
}

#[derive(Default)]
struct Faults {
    /// New connections are closed at once.
    refuse: AtomicBool,
    /// So many commits are let through to the server, but their answers are not; the connection is closed instead.
    cut_commits: AtomicUsize,
    /// So many connections are closed before a commit reaches the server.
    lose_commits: AtomicUsize,
    cut_all: CutAll,
    /// New connections get no answer while it is so.
    hold: watch::Sender<bool>,
    /// Nobody gets an answer while it is so.
    stall: watch::Sender<bool>,
    accepted: AtomicUsize,
}

struct CutAll(broadcast::Sender<()>);

impl Default for CutAll {
    fn default() -> Self {
        Self(broadcast::channel(1).0)
    }
}

impl Proxy {
    pub(super) async fn start(upstream: String, database: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let task = tokio::spawn(serve(listener, upstream, database, Arc::clone(&faults))).abort_handle();
        Self { address, faults, task }
    }

    /// The next `count` commits happen, but nobody hears of it.
    pub(super) fn cut_answers_of_commits(&self, count: usize) {
        self.faults.cut_commits.store(count, Ordering::SeqCst);
    }

    /// The next `count` commits do not happen, and nobody hears of it.
    pub(super) fn lose_commits(&self, count: usize) {
        self.faults.lose_commits.store(count, Ordering::SeqCst);
    }

    /// New connections get no answer until this is taken back.
    pub(super) fn hold(&self, hold: bool) {
        self.faults.hold.send_replace(hold);
    }

    /// All answers wait until this is taken back.
    pub(super) fn stall(&self, stall: bool) {
        self.faults.stall.send_replace(stall);
    }

    /// How many connections there have been.
    pub(super) fn accepted(&self) -> usize {
        self.faults.accepted.load(Ordering::SeqCst)
    }

    /// The host is away.
    pub(super) fn refuse(&self, refuse: bool) {
        self.faults.refuse.store(refuse, Ordering::SeqCst);
        if refuse {
            let _ = self.faults.cut_all.0.send(());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        let _ = self.faults.cut_all.0.send(());
    }
}

async fn serve(listener: TcpListener, upstream: String, database: String, faults: Arc<Faults>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        // Before the look: who refuses from now on cuts this one too.
        let mut cut = faults.cut_all.0.subscribe();
        if faults.refuse.load(Ordering::SeqCst) {
            continue;
        }
        faults.accepted.fetch_add(1, Ordering::SeqCst);
        let (upstream, database, faults) = (upstream.clone(), database.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            drop(faults.hold.subscribe().wait_for(|hold| !hold).await);
            tokio::select! {
                _ = pass(client, &upstream, &database, &faults) => {}
                _ = cut.recv() => {}
            }
        });
    }
}

async fn pass(mut client: TcpStream, upstream: &str, database: &str, faults: &Faults) -> std::io::Result<()> {
    let startup = read_startup(&mut client).await?;
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    server.write_all(&with_database(&startup, database)).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut down = [0; 65536];
    let mut up = [0; 65536];
    loop {
        tokio::select! {
            read = from_server.read(&mut down) => match read? {
                0 => return Ok(()),
                length => {
                    drop(faults.stall.subscribe().wait_for(|stall| !stall).await);
                    to_client.write_all(&down[..length]).await?;
                }
            },
            read = from_client.read(&mut up) => {
                let message = &up[..read?];
                if message.is_empty() {
                    return Ok(());
                }
                // The store sends each commit as one simple query.
                let commit = message.windows(7).any(|window| window == b"COMMIT;");
                if commit && takes_one(&faults.lose_commits) {
                    return Ok(());
                }
                to_server.write_all(message).await?;
                if commit && takes_one(&faults.cut_commits) {
                    // The server answers, so it has committed.
                    let _answer = from_server.read(&mut down).await?;
                    return Ok(());
                }
            }
        }
    }
}

fn takes_one(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
        .is_ok()
}

/// Length (of all), protocol version, then pairs of zero-terminated texts.
async fn read_startup(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await? as usize;
    let mut message = vec![0; length - 4];
    client.read_exact(&mut message).await?;
    Ok(message)
}

fn with_database(startup: &[u8], database: &str) -> Vec<u8> {
    let mut texts = startup[4..].split(|byte| *byte == 0);
    let mut body = startup[..4].to_vec();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        if name.is_empty() {
            break;
        }
        let value = if name == b"database" {
            database.as_bytes()
        } else {
            value
        };
        body.extend([name, &[0], value, &[0]].concat());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], &body].concat()
}
