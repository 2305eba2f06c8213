/* A picture from a camera of the device; a dermatoscope's is one of them. */

import { byId, fill, h } from "./dom.js";
import { t } from "./texts.js";

const LONGEST_SIDE = { width: { ideal: 3840 }, height: { ideal: 2160 } };

/** Whether the browser lets pages use a camera: only over HTTPS, and on the same machine. */
export function hasCamera() {
  return navigator.mediaDevices?.getUserMedia !== undefined;
}

/** Let the reader take a picture; `take` gets it as PNG, which loses nothing. */
export async function openCamera(take) {
  const dialog = byId("camera");
  const video = h("video", { autoplay: true, playsinline: true, muted: true });
  const devices = h("select", { on: { change: () => start(devices.value) } });
  const note = h("p", { role: "status" });
  let stream = null;
  let starts = 0;

  const end = (ended) => ended?.getTracks().forEach((track) => track.stop());
  const stop = () => {
    starts += 1; // what is still on its way is not wanted any more
    end(stream);
  };
  const start = async (deviceId) => {
    stop();
    const own = starts;
    const chosen = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
    let given;
    try {
      given = await navigator.mediaDevices.getUserMedia({ video: { ...LONGEST_SIDE, ...chosen } });
    } catch {
      if (own === starts) note.textContent = t("camera.refused");
      return;
    }
    if (own !== starts) {
      end(given);
      return;
    }
    stream = given;
    note.textContent = "";
    video.srcObject = stream;
    const used = stream.getVideoTracks()[0].getSettings().deviceId;
    const all = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    fill(
      devices,
      all.map((device, index) =>
        h(
          "option",
          { value: device.deviceId, selected: device.deviceId === used },
          device.label || t("camera.number", { number: index + 1 }),
        ),
      ),
    );
  };
  const shoot = () => {
    if (video.videoWidth === 0) return;
    const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take(new File([blob], t("camera.name"), { type: "image/png" })), "image/png");
    dialog.close();
  };
  fill(
    dialog,
    h("h2", {}, t("capture")),
    h("label", {}, t("camera.which"), " ", devices),
    video,
    note,
    h(
      "div",
      { class: "dialog-buttons" },
      h("button", { type: "button", class: "primary", on: { click: shoot } }, t("camera.take")),
      h("button", { type: "button", on: { click: () => dialog.close() } }, t("close")),
    ),
  );
  dialog.setAttribute("aria-label", t("capture"));
  dialog.addEventListener("close", stop, { once: true });
  dialog.showModal();
  await start("");
}
