// Makes pages live and quick to use. Every page works without it.
import { startCopying, startDialogs, startDrafts } from "./forms.js";
import { startHeat } from "./heat.js";
import { startHolding } from "./held.js";
import { startKeys } from "./keys.js";
import { startLive } from "./live.js";
import { startPalette } from "./palette.js";
import { startSuggesting } from "./suggest.js";
import { startTimes } from "./times.js";

// On a phone the navigation is wider than the screen: where the reader is stands in view.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
startTimes();
startCopying();
startDialogs();
startDrafts();
startHeat();
if (document.body.dataset.liveUrl) {
  startPalette();
  startSuggesting();
  startHolding();
  startKeys(startLive());
}
