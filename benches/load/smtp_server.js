// nodemailer's smtp-server with handlers that keep nothing: the least that it can cost.
// Usage: node smtp_server.js PORT [CERTIFICATE KEY]; with a certificate: implicit TLS, and AUTH that any password passes.
'use strict';

const fs = require('node:fs');
const { SMTPServer } = require('smtp-server');

const [port, certificate, key] = process.argv.slice(2);
const tls = certificate ? { secure: true, cert: fs.readFileSync(certificate), key: fs.readFileSync(key) } : {};

const server = new SMTPServer({
    ...tls,
    authOptional: !certificate,
    disableReverseLookup: true,
    logger: false,
    onAuth: (auth, _session, done) => done(null, { user: auth.username }),
    onData(stream, _session, done) {
        stream.on('end', () => done(null, '2.0.0 discarded'));
        stream.resume();
    },
});
server.on('error', () => {}); // a client that left; the load generator counts what it misses
server.listen(Number(port), '127.0.0.1', 1024);
