//! Debian's web servers, and requests to them.
//!
//! - [`php_pool`], [`apache`]: the servers.
//! - [`cgi`]: a user's program that answers requests.
//! - [`get`], [`Requests`]: one request, and many at once that wait for their answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use procstorm_testkit::fault::{Fault, OrFault as _};

use super::LIMIT;
use crate::field::machine::Machine;

/// A pool of php-fpm that runs as the user, with so many processes.
pub fn php_pool(machine: &Machine, user: &str, processes: u32) -> Result<(), Fault> {
    machine.write(
        &format!("etc/php/8.2/fpm/pool.d/{user}.conf"),
        &format!(
            "[{user}]\nuser = {user}\ngroup = {user}\nlisten = /run/php/{user}.sock\n\
             pm = static\npm.max_children = {processes}\n"
        ),
    )?;
    machine.run("systemctl restart php8.2-fpm").map(drop)
}

/// Apache that keeps `ready` processes and has at most `most`. The programs in a user's
/// `public_html/cgi-bin` run as the user.
pub fn apache(machine: &Machine, ready: u32, most: u32) -> Result<(), Fault> {
    machine.write(
        "etc/apache2/conf-enabled/field.conf",
        "ServerName lyon\n\
         <Directory /home/*/public_html/cgi-bin>\nOptions +ExecCGI\nSetHandler cgi-script\n\
         </Directory>\n",
    )?;
    let script = "a2dismod -q mpm_event && a2enmod -q mpm_prefork cgi suexec userdir";
    machine.run(script)?;
    apache_size(machine, ready, most)?;
    machine.run("systemctl restart apache2").map(drop)
}

/// Writes how many processes Apache has, as of its next start or reload.
pub fn apache_size(machine: &Machine, ready: u32, most: u32) -> Result<(), Fault> {
    machine.write(
        "etc/apache2/mods-available/mpm_prefork.conf",
        &format!(
            "StartServers {ready}\nMinSpareServers {ready}\nMaxSpareServers {ready}\n\
             MaxRequestWorkers {most}\n"
        ),
    )
}

/// Gives a user a program that answers requests for `/~USER/cgi-bin/NAME`, written in Python.
pub fn cgi(machine: &Machine, user: &str, name: &str, text: &str) -> Result<(), Fault> {
    let dir = format!("/home/{user}/public_html/cgi-bin");
    machine.write("root/cgi", &format!("#!/usr/bin/env python3\n{text}\n"))?;
    machine
        .run(&format!(
            "chmod 711 /home/{user}
             install -d -o {user} -g {user} /home/{user}/public_html {dir}
             install -m 755 -o {user} -g {user} /root/cgi {dir}/{name}"
        ))
        .map(drop)
}

/// Asks for a page, and returns the whole answer. Call it in the machine's network.
pub fn get(server: SocketAddr, path: &str) -> Result<String, Fault> {
    let mut stream = TcpStream::connect(server).or_fault("no connection to the web server")?;
    stream.set_read_timeout(Some(LIMIT)).or_fault("no time-out")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: lyon\r\n\r\n");
    stream.write_all(request.as_bytes()).or_fault("the web server hung up")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).or_fault("the web server does not answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Requests that wait for their answers.
#[derive(Debug)]
pub struct Requests {
    threads: Vec<JoinHandle<Result<String, Fault>>>,
}

impl Requests {
    /// Sends `count`, each by a client of its own. Call it in the machine's network.
    #[must_use]
    pub fn start(server: SocketAddr, path: &str, count: usize) -> Self {
        let one = |_| {
            let path = path.to_owned();
            std::thread::spawn(move || get(server, &path))
        };
        Self { threads: (0..count).map(one).collect() }
    }

    /// How many have got their answers.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.threads.iter().filter(|thread| thread.is_finished()).count()
    }

    /// Waits for all answers.
    pub fn answers(self) -> Result<Vec<String>, Fault> {
        let answer = |thread: JoinHandle<Result<String, Fault>>| {
            thread.join().map_err(|_panic| Fault::new("a client has panicked"))?
        };
        self.threads.into_iter().map(answer).collect()
    }
}
