// Serves the hub's pages on a loopback port, with the headers that they are sent with.
import { createServer } from "node:http";

/// `answers` are served beside the pages: a function by path, which is given the request and
/// answers `{ status, headers, body }`.
export async function serve(gallery, answers) {
  const pages = new Map(gallery.pages.map((page) => [`/pages/${page.name}`, page]));
  const assets = new Map(gallery.assets.map((asset) => [asset.path, asset]));
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://gallery").pathname;
    const page = pages.get(path);
    const asset = assets.get(path);
    if (answers[path]) {
      const { status = 200, headers = {}, body = "" } = answers[path](request);
      response.writeHead(status, headers).end(body);
    } else if (page) {
      response.writeHead(page.status, page.headers.flat()).end(page.html);
    } else if (asset) {
      response.writeHead(200, { "content-type": asset.type }).end(asset.text);
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return { origin, at: (name) => `${origin}/pages/${name}`, close: () => server.close() };
}
