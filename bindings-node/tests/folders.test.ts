/** Folders there and back, as TypeScript says it. What a hostile stream can do is tested with the code that reads it. */

import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { ForkyardError, InvalidArgument, NotFound, Sandbox } from 'forkyard';

let sandbox: Sandbox;
let local: string;
let project: string;
before(async () => {
  sandbox = await Sandbox.create({ image: 'base', memoryMb: 256 });
  local = await mkdtemp(join(tmpdir(), 'forkyard-'));
});
after(async () => {
  await rm(local, { recursive: true });
  await sandbox.destroy();
});

/** A folder with a bit of everything. */
beforeEach(async () => {
  project = await mkdtemp(join(local, 'project-'));
  await mkdir(join(project, 'src'));
  await writeFile(join(project, 'src/é\n'), Buffer.alloc(100_000, 0xff));
  await writeFile(join(project, 'tool'), '#!/bin/sh\necho works\n');
  await chmod(join(project, 'tool'), 0o750);
  await symlink('src', join(project, 'link'));
});

/** For a test whose transfer stands still. */
const BOUNDED = { timeout: 120_000 };

test('a folder comes back as it went', BOUNDED, async () => {
  const told: number[] = [];
  const sent = await sandbox.uploadDir(project, '/workspace/tree/project', { onProgress: (bytes) => told.push(bytes) });
  assert.deepEqual({ ...sent }, { files: 2, folders: 2, links: 1, bytes: 100_021, skipped: 0, skippedPaths: [] });
  assert.ok((told.at(-1) ?? 0) > 100_021, `${told}`);
  assert.deepEqual(
    [...told].sort((a, b) => a - b),
    told,
  );
  const script = './tool; stat -c %U:%a tool; ln -s /etc out';
  const ran = await sandbox.exec({ cmd: 'sh', args: ['-c', script], cwd: '/workspace/tree/project' });
  assert.equal(ran.stdout, 'works\nagent:750\n');
  const copy = join(local, 'copy');
  const fetched = await sandbox.downloadDir(Buffer.from('/workspace/tree/project'), copy);
  assert.deepEqual([fetched.files, fetched.skipped, fetched.skippedPaths], [2, 1, ['out']]);
  assert.ok((await readFile(join(copy, 'link/é\n'))).equals(Buffer.alloc(100_000, 0xff)));
  assert.equal((await stat(join(copy, 'tool'))).mode & 0o777, 0o750);
  assert.deepEqual((await readdir(copy)).sort(), ['link', 'src', 'tool']);
});

test('what cannot be moved is named', BOUNDED, async () => {
  await assert.rejects(sandbox.downloadDir('/workspace/none', join(local, 'none')), (error) => {
    assert.ok(error instanceof NotFound);
    assert.match(error.message, /\/workspace\/none: no such file/);
    return true;
  });
  await assert.rejects(stat(join(local, 'none')), { code: 'ENOENT' });
  await assert.rejects(sandbox.uploadDir(join(project, 'none'), '/workspace/x'), (error) => {
    assert.ok(error instanceof NotFound);
    assert.match(error.message, /the local file .*\/none: /);
    return true;
  });
  await assert.rejects(sandbox.upload(project, '/workspace/x'), InvalidArgument);
  await sandbox.writeFile('/workspace/taken', '');
  await assert.rejects(sandbox.uploadDir(project, '/workspace/taken'), (error) => {
    assert.ok(error instanceof ForkyardError);
    assert.match(error.message, /\/workspace\/taken: not a directory/);
    return true;
  });
});

test('an abort, or an error in the listener, ends it and leaves nothing', BOUNDED, async () => {
  // More than goes over before it is aborted.
  await truncate(join(project, 'tool'), 2_000_000_000);
  const abort = new AbortController();
  const onProgress = () => abort.abort(new RangeError('enough'));
  await assert.rejects(sandbox.uploadDir(project, '/workspace/big', { signal: abort.signal, onProgress }), RangeError);
  const failing = () => {
    throw new SyntaxError('no more');
  };
  await assert.rejects(sandbox.uploadDir(project, '/workspace/big', { onProgress: failing }), SyntaxError);
  assert.equal(await sandbox.exists('/workspace/big'), false);
  await sandbox.exec({ cmd: 'sh', args: ['-c', 'mkdir many && truncate -s 2000000000 many/zeros'], check: true });
  await assert.rejects(
    sandbox.downloadDir('/workspace/many', join(local, 'many'), { onProgress: failing }),
    SyntaxError,
  );
  const signal = AbortSignal.abort(new RangeError('before'));
  await assert.rejects(sandbox.downloadDir('/workspace/many', join(local, 'many'), { signal }), RangeError);
  await assert.rejects(stat(join(local, 'many')), { code: 'ENOENT' });
});
