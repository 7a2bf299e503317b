// Goes on at once, by the page's form or its link. Without it, there are the button and the link.
const form = document.getElementById("post");
if (form) form.submit();
else location.replace(document.getElementById("onward").href);
